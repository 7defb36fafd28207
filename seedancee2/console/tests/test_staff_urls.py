"""Every address of the admin, for every group of the staff: who may open it and who may not.

An address without a row here fails: whoever adds a page says who may see it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.http import Http404
from django.test import Client, RequestFactory
from django.urls import URLResolver, resolve

from accounts.models import ApiKey, AuditEntry, Organization, User
from accounts.tests.factories import MembershipFactory, UserFactory, issue_key
from billing import adjustments, topups
from billing.models import (
    Adjustment,
    BalanceAlert,
    CreditAccount,
    Finding,
    LedgerEntry,
    Rate,
    Reservation,
    TopUpRequest,
)
from generations.models import Generation, ModelAlias, PublicModel, ReconciliationRun
from generations.tests.factories import create_generation, funded_organization
from providers.models import Channel, Route, UpstreamCall, UpstreamJob
from seedancee2.console import staff_groups
from tests.web import complete
from webhooks.models import Callback, Delivery, Endpoint

pytestmark = pytest.mark.django_db

S, F, O = "support", "finance", "operations"  # noqa: E741 - one letter each, so that the table can be read
ALL = {S, F, O}
NOBODY: set[str] = set()

# Who may see a model's rows, add one, change one, and delete one. What is closed to all stays closed to superusers.
MODELS: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    "accounts_user": ({S}, NOBODY, NOBODY, NOBODY),
    "accounts_organization": (ALL, NOBODY, {O}, NOBODY),
    "accounts_apikey": ({S, O}, NOBODY, {S, O}, NOBODY),
    "accounts_auditentry": (ALL, NOBODY, NOBODY, NOBODY),
    "auth_group": (NOBODY, NOBODY, NOBODY, NOBODY),
    "mfa_authenticator": (NOBODY, NOBODY, NOBODY, NOBODY),
    "billing_adjustment": ({F}, NOBODY, NOBODY, NOBODY),
    "billing_balancealert": ({F}, NOBODY, NOBODY, NOBODY),
    "billing_creditaccount": ({S, F}, NOBODY, NOBODY, NOBODY),
    "billing_finding": ({F, O}, NOBODY, NOBODY, NOBODY),
    "billing_ledgerentry": ({S, F}, NOBODY, NOBODY, NOBODY),
    "billing_rate": (ALL, {F}, NOBODY, NOBODY),
    "billing_reservation": ({F, O}, NOBODY, NOBODY, NOBODY),
    "billing_topuprequest": ({S, F}, NOBODY, NOBODY, NOBODY),
    "generations_generation": (ALL, NOBODY, NOBODY, NOBODY),
    "generations_modelalias": (ALL, NOBODY, NOBODY, NOBODY),
    "generations_publicmodel": (ALL, NOBODY, {O}, NOBODY),
    "generations_reconciliationrun": ({F, O}, NOBODY, NOBODY, NOBODY),
    "providers_channel": ({O}, {O}, {O}, NOBODY),
    "providers_route": ({O}, {O}, {O}, NOBODY),
    "providers_upstreamcall": ({O}, NOBODY, NOBODY, NOBODY),
    "providers_upstreamjob": ({S, O}, NOBODY, NOBODY, NOBODY),
    "webhooks_callback": ({O}, NOBODY, NOBODY, NOBODY),
    "webhooks_delivery": ({S, O}, NOBODY, NOBODY, NOBODY),
    "webhooks_endpoint": ({S, O}, NOBODY, NOBODY, NOBODY),
}
# What even a superuser may do with a form: add, change, delete. All else is seen only, or done by an action below.
SUPERUSER: dict[str, set[str]] = {
    "accounts_user": {"add"},
    "accounts_organization": {"add"},
    "auth_group": {"add", "delete"},
    "billing_rate": {"add"},
    "generations_modelalias": {"add", "delete"},
    "generations_publicmodel": {"add"},
    "mfa_authenticator": {"delete"},
    "providers_channel": {"add", "delete"},  # one without jobs
    "providers_route": {"add", "delete"},
}
# What is done beyond the forms, and who may.
ACTIONS: dict[str, set[str]] = {
    "accounts_apikey_revoke": {S, O},
    "accounts_organization_act_as": {S},
    "accounts_organization_adjust": {F},
    "accounts_organization_issue_key": {S},
    "accounts_organization_reinstate": {O},
    "accounts_organization_revoke_all": {S, O},
    "accounts_organization_show_keys": {S, O},
    "accounts_organization_suspend": {O},
    "accounts_organization_write_note": ALL,
    "auth_user_password_change": NOBODY,
    "billing_adjustment_approve": {F},
    "billing_adjustment_decline": {F},
    "billing_creditaccount_adjust": {F},
    "billing_topuprequest_decline": {F},
    "billing_topuprequest_grant": {F},
    "generations_generation_erase": {O},
    "generations_generation_fail": {O},
    "generations_generation_move": {O},
    "generations_generation_poll_now": {O},
    "generations_generation_redeliver": {S, O},
    "generations_generation_refund": {F},
    "providers_channel_activate": {O},
    "providers_channel_drain": {O},
    "providers_channel_forget_failures": {O},
    "providers_channel_switch_off": {O},
    "providers_channel_test_call": {O},
    "webhooks_delivery_recover": {S, O},
    "webhooks_delivery_redeliver": {S, O},
    "webhooks_delivery_send_test": {S, O},
    "webhooks_endpoint_try_now": {S, O},
}
# Actions on rows chosen in a list, by the list's model: who is offered them, and what they would change.
LISTS: dict[str, dict[str, set[str]]] = {
    "accounts_apikey": {"revoke_selected": {S, O}},
    "accounts_organization": {"suspend_selected": {O}},
    "generations_generation": {"refund_selected": {F}},
    "webhooks_delivery": {"redeliver_selected": {S, O}},
}
# Pages of the site itself: what any member of the staff gets.
SITE = {
    "index": {200},
    "search": {200},
    "login": {200, 302},
    "logout": {405},
    "password_change": {302},  # to the page that writes it down
    "password_change_done": {200, 302},
    "autocomplete": {403},  # as long as no field and term is named
    "jsi18n": {200},
    "view_on_site": {404},
    "app_list": {200, 404},
    None: {302, 404},  # an address without a page at its end
}
ONLY_WHERE_POSSIBLE = {"accounts_organization_reinstate", "accounts_apikey_revoke"}


@pytest.fixture
def rows() -> dict[str, Any]:
    """One row of each model, by the name of its pages; and a stranger's organization beside it."""
    staff_groups.ensure()
    organization, _stranger = funded_organization(), funded_organization()
    issue_key(organization)
    person = UserFactory.create()
    MembershipFactory.create(user=person, organization=organization)
    task = complete(create_generation(organization, callback_url="https://customer.example/"))
    job = UpstreamJob.objects.get(reference=task.pk)
    call = UpstreamCall.objects.create(job=job, kind="submit", request="{}", response="{}")
    callback = Callback.objects.create(job=job, body=b"{}", body_sha256=b"x", verdict="hint")
    waiting = adjustments.request(
        organization_id=organization.pk, amount=10**6, reason="x", requested_by="user:0", adjustment_id="adj_1"
    )
    return {
        "accounts_user": person,
        "accounts_organization": organization,
        "accounts_apikey": ApiKey.objects.get(),
        "accounts_auditentry": AuditEntry.objects.latest("pk"),
        "auth_group": Group.objects.get(name=S),
        "mfa_authenticator": Authenticator.objects.create(user=person, type="totp", data={}),
        "billing_adjustment": waiting,
        "billing_balancealert": BalanceAlert.objects.create(account_id=organization.pk, credits=1),
        "billing_creditaccount": CreditAccount.objects.get(pk=organization.pk),
        "billing_finding": Finding.objects.create(rule="r", subject="s", detail="d"),
        "billing_ledgerentry": LedgerEntry.objects.filter(account_id=organization.pk).first(),
        "billing_rate": Rate.objects.first(),
        "billing_reservation": Reservation.objects.get(),
        "billing_topuprequest": topups.ask(organization_id=organization.pk, amount=5, note="", asked_by=person),
        "generations_generation": task,
        "generations_modelalias": ModelAlias.objects.create(alias="old", model_id="mini"),
        "generations_publicmodel": PublicModel.objects.get(pk="mini"),
        "generations_reconciliationrun": ReconciliationRun.objects.create(finding_count=0),
        "providers_channel": Channel.objects.get(name="sandbox"),
        "providers_route": Route.objects.first(),
        "providers_upstreamcall": call,
        "providers_upstreamjob": job,
        "webhooks_callback": callback,
        "webhooks_delivery": Delivery.objects.get(),
        "webhooks_endpoint": Endpoint.objects.get(),
    }


def addresses() -> Iterator[tuple[str, str | None]]:
    """Walk the map of the admin's addresses."""

    def walk(patterns, prefix):
        for pattern in patterns:
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, prefix + str(pattern.pattern))
            else:
                yield prefix + str(pattern.pattern), pattern.name

    yield from walk(admin.site.urls[0], "/admin/")


def filled(pattern: str, name: str | None, rows: dict[str, Any]) -> str:
    """Write a row's id into an address."""
    path = pattern.replace("^", "").replace("$", "").replace("(?P<url>.*)", "nowhere")
    path = re.sub(r"\(\?P<app_label>[^)]*\)", "generations", path)
    if "<path:content_type_id>" in path:
        return path.replace("<path:content_type_id>/<path:object_id>", "1/1")
    model = "_".join(path.split("/")[2:4])
    row = rows.get(model)
    for slot in ("<path:object_id>", "<id>"):
        path = path.replace(slot, str(row.pk if row else ""))
    return path


def member(group: str | None) -> tuple[Client, User]:
    """Sign in a member of the staff, of a group or of none."""
    user = UserFactory.create(is_staff=True)
    if group:
        user.groups.set([Group.objects.get(name=group)])
    client = Client()
    client.force_login(user)
    return client, user


def look(path: str, user: User) -> int:
    """Ask the view itself, and draw nothing: the drawing is most of a page's time, and a superuser sees them all."""
    request = RequestFactory().get(path)
    request.user, request.session = user, SessionStore()
    request._messages = FallbackStorage(request)  # type: ignore[attr-defined] # where the middleware puts it
    request.resolver_match = resolve(request.path_info)
    try:
        with mock.patch("django.template.backends.django.Template.render", return_value=""):
            view, arguments, names = request.resolver_match
            return int(view(request, *arguments, **names).status_code)
    except PermissionDenied:
        return 403
    except Http404:
        return 404


def expected(name: str | None) -> set[str] | None:
    """Return the groups that may open an address; None where it is a page of the site itself. No row: a KeyError."""
    if name is None or name in SITE:
        return None
    if name in ACTIONS:
        return ACTIONS[name]
    model, _, page = name.rpartition("_")
    see, add, _, delete = MODELS[model]
    return {"changelist": see, "change": see, "history": see, "add": add, "delete": delete}[page]


def test_the_groups_have_what_the_table_says_and_no_more(rows):
    support = Group.objects.get(name=S)
    support.permissions.set(Permission.objects.filter(codename="adjust_creditaccount"))
    staff_groups.ensure()

    for name, permissions in staff_groups.TABLE.items():
        held = Group.objects.get(name=name).permissions.values_list("content_type__app_label", "codename")
        assert {f"{app}.{codename}" for app, codename in held} == set(permissions)


def test_a_deployment_makes_the_groups():
    Group.objects.all().delete()

    call_command("migrate", verbosity=0)

    assert set(Group.objects.values_list("name", flat=True)) == ALL
    assert Group.objects.get(name=F).permissions.filter(codename="refund_generation").count() == 1


@pytest.mark.parametrize("group", [None, S, F, O])
def test_each_group_opens_what_it_may_and_nothing_else(rows, group):
    _, user = member(group)
    noted = AuditEntry.objects.count()
    wrong = []
    for pattern, name in addresses():
        groups = expected(name)
        status = look(filled(pattern, name, rows), user)
        if groups is None:
            is_right = status in SITE[name]
        elif group in groups:
            is_right = status in (200, 302) or (name in ONLY_WHERE_POSSIBLE and status == 403)
        else:
            is_right = status == 403
        if not is_right:
            wrong.append((name or pattern, status))

    assert wrong == []
    assert AuditEntry.objects.count() == noted


def test_nobody_opens_anything_without_signing_in(rows):
    client, customer = Client(), Client()
    customer.force_login(rows["accounts_user"])
    wrong = []
    for pattern, name in addresses():
        path = filled(pattern, name, rows)
        for one in (client, customer):
            status = one.get(path).status_code
            if name in ("login", "jsi18n", "logout"):
                continue
            if status != 302:
                wrong.append((path, status))

    assert wrong == []


@pytest.mark.parametrize("group", [None, S, F, O])
def test_who_may_not_do_something_changes_nothing_by_sending_it(rows, group):
    client, _ = member(group)
    before = _state()
    form = {"reason": "because", "amount": "5", "refunded_before": "0", "channel": "any", "reference": "adj_9"}
    form |= {"name": "key", "mode": "live", "route": str(rows["providers_route"].pk), "post": "yes"}
    wrong = []
    count = 0
    for pattern, name in addresses():
        groups = expected(name)
        if groups is None:
            continue
        page = name.rpartition("_")[2]
        if name in ACTIONS or page in ("add", "delete"):
            may = groups
        elif page == "change":
            may = MODELS[name.removesuffix("_change")][2]
        else:
            continue
        if group in may:
            continue
        count += 1
        status = client.post(filled(pattern, name, rows), form).status_code
        if status != 403:
            wrong.append((name, status))

    assert wrong == []
    assert count > 40
    assert _state() == before


def test_a_superuser_sees_all_and_changes_only_what_has_a_form(rows):
    client, user = member(None)
    user.is_superuser = True
    user.save()
    wrong = []
    for pattern, name in addresses():
        status = client.get(filled(pattern, name, rows)).status_code
        if name is None or name in SITE:
            is_right = status in SITE[name]
        elif name in ACTIONS:
            is_right = status in (200, 302) or (name in ONLY_WHERE_POSSIBLE and status == 403)
        else:
            model, _, page = name.rpartition("_")
            may = page not in ("add", "delete") or page in SUPERUSER.get(model, NOBODY)
            is_right = status == (200 if may else 403)
        if not is_right:
            wrong.append((name or pattern, status))
    for model in MODELS.keys() - SUPERUSER.keys():
        path = f"/admin/{model.replace('_', '/', 1)}/{rows[model].pk}/delete/"
        if client.post(path, {"post": "yes"}).status_code != 403:
            wrong.append((path, "deleted"))

    assert wrong == []


@pytest.mark.parametrize("group", [None, S, F, O])
def test_what_a_list_offers_for_the_chosen_rows_is_checked_once_more(rows, group):
    client, _ = member(group)
    before = _state()
    count = 0
    for model_admin in admin.site._registry.values():
        name = f"{model_admin.opts.app_label}_{model_admin.opts.model_name}"
        known = LISTS.get(name, {})
        assert {getattr(one, "__name__", one) for one in model_admin.actions} == set(known), name
        for action, groups in known.items():
            form = {
                "action": action,
                "_selected_action": rows[name].pk,
                "confirmed": "yes",
                "confirm": "1",
                "reason": "because",
            }
            client.post(f"/admin/{name.replace('_', '/', 1)}/", form | {f"seen_{rows[name].pk}": "0"})
            if group in groups:
                count += 1
                assert _state() != before, (action, group)
                before = _state()
            else:
                assert _state() == before, (action, group)

    assert count == {None: 0, S: 2, F: 1, O: 3}[group]


def _state() -> str:
    money = (LedgerEntry, Reservation, CreditAccount, Adjustment, TopUpRequest)
    tables = (*money, Generation, UpstreamJob, Channel, Route, ApiKey, Organization, Delivery, Endpoint)
    rows = [[str(sorted(row.items())) for row in table.objects.order_by("pk").values()] for table in tables]
    return json.dumps([rows, AuditEntry.objects.count(), Rate.objects.count(), PublicModel.objects.count()])


def test_no_action_touches_rows_that_nobody_chose(rows):
    client, user = member(None)
    user.is_superuser = True
    user.save()
    request = RequestFactory().get("/admin/")
    request.user = user
    before = _state()
    for model_admin in admin.site._registry.values():
        path = f"/admin/{model_admin.opts.app_label}/{model_admin.opts.model_name}/"
        for action in model_admin.get_actions(request):
            assert model_admin.list_disable_select_all, path
            form = {"action": action, "confirmed": "yes", "confirm": "1", "reason": "because", "post": "yes"}
            page = client.post(path, form | {"select_across": "1", "_selected_action": "1"}, follow=True)
            assert "Choose the rows one by one" in page.content.decode(), (path, action)

    assert _state() == before


def test_an_address_that_no_row_can_have_leads_nowhere(rows):
    client, user = member(None)
    user.is_superuser = True
    user.save()
    count = 0
    for pattern, name in addresses():
        if ("<path:object_id>" not in pattern and "<id>" not in pattern) or "<path:content_type_id>" in pattern:
            continue
        model = "_".join(pattern.split("/")[2:4])
        numbered = isinstance(rows[model].pk, int)
        for number in ("%00", "1%00", *(("abc", "9" * 30) if numbered else ("x" * 500,))):
            path = pattern.replace("<path:object_id>", number).replace("<id>", number)
            if name is None:  # the admin's own way from an address without a page at its end
                continue
            assert client.get(path).status_code == 404, path
            assert client.post(path, {"reason": "x"}).status_code == 404, path
            count += 1

    assert count > 200
