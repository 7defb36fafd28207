"""The table of roles, cell by cell: every address of the console, every role, every method.

An address that has no row here fails: write down who may do what there.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts import invitations, keys
from accounts.models import Invitation, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from billing import alerts, topups
from billing.models import BalanceAlert, TopUpRequest
from generations.models import Generation
from generations.tests.factories import create_generation
from seedancee2.lib import clock
from webhooks.models import Delivery, SigningSecret
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

Role = Membership.Role
EVERYBODY = "owner admin developer billing viewer"
MANAGERS = "owner admin"
MAKERS = "owner admin developer"
KEY_VIEWERS = "owner admin viewer"
ACCOUNTANTS = "owner admin billing"

# Name of the address: what it is about, and who may GET and POST; a method that is not there is 405 for everybody.
# The key is a colleague's, so a developer does not see it, and the member and the invitation are of viewers.
TABLE: dict[str, tuple[str, dict[str, str]]] = {
    "console-home": ("", {"get": EVERYBODY}),
    "console-organization": ("", {"post": EVERYBODY}),
    "console-keys": ("", {"get": EVERYBODY, "post": MAKERS}),
    "console-key": ("key", {"get": KEY_VIEWERS, "post": MANAGERS}),
    "console-key-roll": ("key", {"get": MANAGERS, "post": MANAGERS}),
    "console-key-revoke": ("key", {"get": MANAGERS, "post": MANAGERS}),
    "console-members": ("", {"get": EVERYBODY, "post": MANAGERS}),
    "console-member-role": ("member", {"post": MANAGERS}),
    "console-member-remove": ("member", {"get": MANAGERS, "post": MANAGERS}),
    "console-leave": ("", {"get": EVERYBODY, "post": EVERYBODY}),
    "console-leaver-keys": ("leaver", {"get": MANAGERS, "post": MANAGERS}),
    "console-invitation-resend": ("invitation", {"post": MANAGERS}),
    "console-invitation-withdraw": ("invitation", {"post": MANAGERS}),
    "console-audit": ("", {"get": MANAGERS}),
    "console-settings": ("", {"get": MANAGERS, "post": MANAGERS}),
    "console-tasks": ("", {"get": EVERYBODY}),
    "console-tasks-export": ("", {"get": EVERYBODY}),
    "console-task": ("task", {"get": EVERYBODY}),
    "console-task-delete": ("task", {"get": MANAGERS, "post": MANAGERS}),
    "console-playground": ("", {"get": MAKERS, "post": MAKERS}),
    "console-playground-task": ("task", {"get": MAKERS}),
    "console-usage": ("", {"get": EVERYBODY}),
    "console-usage-file": ("", {"get": EVERYBODY}),
    "console-billing": ("", {"get": ACCOUNTANTS}),
    "console-ledger": ("", {"get": ACCOUNTANTS}),
    "console-ledger-file": ("", {"get": ACCOUNTANTS}),
    "console-statement": ("month", {"get": ACCOUNTANTS}),
    "console-statement-file": ("month", {"get": ACCOUNTANTS}),
    "console-top-up": ("", {"post": ACCOUNTANTS}),
    "console-top-up-withdraw": ("top_up", {"post": ACCOUNTANTS}),
    "console-alert-add": ("", {"post": ACCOUNTANTS}),
    "console-alert-remove": ("alert", {"post": ACCOUNTANTS}),
    "console-webhooks": ("", {"get": MAKERS}),
    "console-webhook": ("delivery", {"get": MAKERS, "post": MAKERS}),
    "console-webhook-test": ("", {"get": MAKERS, "post": MAKERS}),
    "console-webhooks-recover": ("", {"get": MAKERS, "post": MAKERS}),
    "console-webhook-signing": ("", {"get": MANAGERS, "post": MANAGERS}),
    "console-webhook-secret": ("", {"post": MANAGERS}),
    "console-webhook-rotate": ("", {"post": MANAGERS}),
}
# What a form sends where an empty one is nobody's.
FORMS = {"console-webhook-signing": {"signing": "on"}}
# Whoever has the link, member or not: tested in accounts/tests/test_console_members.py.
OPEN = {"console-invitation", "console-invitation-accept"}


class Scene:
    """An organization with a colleague, a key, an invitation, and the person who asks."""

    def __init__(self, role: str) -> None:
        self.organization: Organization = OrganizationFactory.create()
        self.user: User = UserFactory.create()
        owner = MembershipFactory.create(organization=self.organization, role=Role.OWNER)
        MembershipFactory.create(organization=self.organization, role=role, user=self.user)
        self.member = MembershipFactory.create(organization=self.organization, role=Role.VIEWER)
        self.key = keys.issue(organization=self.organization, name="k", mode="live", created_by=self.member.user).key
        self.invitation = invitations.invite(
            organization=self.organization,
            email="new@example.com",
            role=Role.VIEWER,
            actor=owner.user,
            may_touch_owners=False,
        )

        self.leaver: User = UserFactory.create(email="gone@example.com")
        keys.issue(organization=self.organization, name="left", mode="live", created_by=self.leaver)
        self.task = create_generation(self.organization, is_test=True)
        self.delivery = DeliveryFactory.create(
            organization=self.organization, state="abandoned", due_at=None, finished_at=clock.now()
        )
        self.alert = alerts.add(organization_id=self.organization.pk, credits=5, added_by=self.member.user)
        self.top_up = topups.ask(
            organization_id=self.organization.pk, amount=5, note="for tests", asked_by=self.member.user
        )
        self.month = "2026-01"

    def address(self, name: str) -> str:
        """Return the address of a page about what is in the scene."""
        about = TABLE[name][0]
        thing = getattr(self, about) if about else None
        return reverse(name, args=[getattr(thing, "pk", thing)] if about else [])

    def facts(self) -> tuple[Any, ...]:
        """Return everything that a refused request must leave as it was."""
        return (
            Organization.objects.filter(pk=self.organization.pk).values().get(),
            list(Membership.objects.order_by("pk").values("pk", "role")),
            list(self.organization.api_keys.order_by("pk").values("pk", "revoked_at", "replaced_by", "name")),
            list(Invitation.objects.order_by("pk").values("pk", "withdrawn_at", "sent_at")),
            list(Generation.objects.order_by("pk").values("pk", "status", "prompt_deleted_at")),
            list(Delivery.objects.order_by("pk").values("pk", "state")),
            list(BalanceAlert.objects.order_by("pk").values("pk")),
            list(TopUpRequest.objects.order_by("pk").values("pk", "state")),
            SigningSecret.objects.count(),
            self.organization.audit_entries.count(),
        )


def console_addresses(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, str | None, Callable[..., Any]]]:
    """Yield path, name and view of every address below `/console/`."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from console_addresses(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and path.startswith("console/"):
            yield path, pattern.name, pattern.callback


def test_every_address_of_the_console_has_its_row() -> None:
    found = {name or path for path, name, _ in console_addresses()}
    assert found == set(TABLE) | OPEN


METHODS = ("get", "post", "put", "patch", "delete")


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Take back what a request changed, so that one scene serves for the next cell too."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def is_expected(status: int, *, name: str, role: str, method: str) -> bool:
    """Tell whether a cell of the table was answered as it says."""
    roles = TABLE[name][1].get(method)
    seen = {role for allowed in TABLE[name][1].values() for role in allowed.split()}
    if roles is None:
        # Who may not come at all is told that first.
        return status in ({405} if role in seen else {403, 404, 405})
    return status in ((200, 302) if role in roles.split() else (403, 404))


@pytest.mark.parametrize("role", Role.values)
def test_every_cell_of_a_role(role: str) -> None:
    scene = Scene(role)
    client = Client()
    client.force_login(scene.user)
    before = scene.facts()
    wrong = []
    for name, (_, allowed) in TABLE.items():
        for method in METHODS:
            with undone():
                form = FORMS.get(name) if method == "post" else None
                status = getattr(client, method)(scene.address(name), form).status_code
                may = role in allowed.get(method, "").split()
                if not is_expected(status, name=name, role=role, method=method):
                    wrong.append(f"{method} {name}: {status}")
                elif not may and scene.facts() != before:
                    wrong.append(f"{method} {name}: refused with {status}, and something changed")
    assert wrong == []
    assert scene.facts() == before


def test_who_belongs_elsewhere_gets_404_or_their_own_page() -> None:
    scene = Scene(Role.VIEWER)
    stranger = MembershipFactory.create(role=Role.OWNER)
    client = Client()
    client.force_login(stranger.user)
    before = scene.facts()
    wrong = []
    for name, (about, allowed) in TABLE.items():
        for method in allowed:
            forms = [{"organization": scene.organization.pk}]
            if about not in ("", "month"):  # a month is everybody's own
                forms.append({})
            for form in forms:
                status = getattr(client, method)(scene.address(name), form).status_code
                if status != 404:
                    wrong.append(f"{method} {name} {form}: {status}")
    assert wrong == []
    assert scene.facts() == before


def test_nobody_comes_in_without_signing_in() -> None:
    scene = Scene(Role.VIEWER)
    before = scene.facts()
    for name, (_, allowed) in TABLE.items():
        for method in allowed:
            reply = getattr(Client(), method)(scene.address(name))
            found = (name, method, reply.status_code, reply["Location"].partition("?")[0])
            assert found == (name, method, 302, "/accounts/login/")
    assert scene.facts() == before
