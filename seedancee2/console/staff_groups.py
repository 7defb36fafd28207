"""The staff's three groups and the least that each needs; `migrate` keeps them as this table says.

Whoever needs other rights gets a group of another name: what is granted to these by hand is taken away by the next
deployment.
"""

from typing import Any, Final

from django.apps import AppConfig
from django.apps import apps as live_apps
from django.apps.registry import Apps
from django.contrib.auth.models import Group, Permission

_LOOK: Final = (
    "accounts.view_organization",
    "accounts.view_staffnote",
    "accounts.add_staffnote",
    "accounts.view_membership",
    "generations.view_generation",
    "generations.view_outputasset",
    "generations.view_publicmodel",
    "generations.view_modelalias",
)
_WEBHOOKS: Final = (
    "webhooks.view_endpoint",
    "webhooks.view_delivery",
    "webhooks.view_deliveryattempt",
    "webhooks.redeliver_delivery",
)

TABLE: Final[dict[str, tuple[str, ...]]] = {
    # Answers customers: sees what they see and why, issues and revokes keys, has webhooks sent again, touches neither
    # money nor providers.
    "support": (
        *_LOOK,
        "accounts.view_user",
        "accounts.view_apikey",
        "accounts.add_apikey",
        "accounts.change_apikey",
        "accounts.act_as_organization",
        "accounts.view_auditentry",
        "billing.view_creditaccount",
        "billing.view_ledgerentry",
        "billing.view_rate",
        "providers.view_upstreamjob",
        "billing.view_topuprequest",
        *_WEBHOOKS,
    ),
    # Moves credits, sets prices, and reads the books.
    "finance": (
        *_LOOK,
        "accounts.view_auditentry",
        "billing.view_creditaccount",
        "billing.adjust_creditaccount",
        "billing.view_ledgerentry",
        "billing.view_reservation",
        "billing.view_adjustment",
        "billing.view_topuprequest",
        "billing.view_balancealert",
        "billing.view_finding",
        "billing.view_rate",
        "billing.add_rate",
        "generations.view_reconciliationrun",
        "generations.refund_generation",
    ),
    # Keeps tasks moving: providers, routes, models, and tasks that are stuck; suspends who does harm.
    "operations": (
        *_LOOK,
        "accounts.change_organization",
        "accounts.view_apikey",
        "accounts.change_apikey",
        "accounts.view_auditentry",
        "billing.view_finding",
        "billing.view_reservation",
        "billing.view_rate",
        "generations.operate_generation",
        "generations.erase_generation",
        "generations.change_publicmodel",
        "generations.view_reconciliationrun",
        "providers.view_channel",
        "providers.add_channel",
        "providers.change_channel",
        "providers.view_channelhealth",
        "providers.view_credential",
        "providers.view_route",
        "providers.add_route",
        "providers.change_route",
        "providers.view_upstreamjob",
        "providers.view_upstreamcall",
        "webhooks.view_callback",
        *_WEBHOOKS,
    ),
}


def ensure() -> None:
    """Give each group exactly the permissions of the table, and make it where it is missing."""
    known = {
        f"{app}.{codename}": pk
        for pk, app, codename in Permission.objects.values_list("pk", "content_type__app_label", "codename")
    }
    for name, permissions in TABLE.items():
        group, _ = Group.objects.get_or_create(name=name)
        # One that an older state of the database does not know comes with the migration that makes it.
        group.permissions.set([known[permission] for permission in permissions if permission in known])


def after_migrate(*, app_config: AppConfig, apps: Apps, **_: Any) -> None:
    """Keep the groups, once the last application has its permissions."""
    is_last = app_config is list(live_apps.get_app_configs())[-1]
    if is_last and ("auth", "group") in {
        (model._meta.app_label, model._meta.model_name) for model in apps.get_models()
    }:
        ensure()
