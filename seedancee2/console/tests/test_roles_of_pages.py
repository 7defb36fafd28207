"""The table of roles, cell by cell: every address of the console, every role, every method.

An address that has no row here fails: write down who may do what there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts import invitations, keys
from accounts.models import Invitation, Membership, Organization, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory

pytestmark = pytest.mark.django_db

Role = Membership.Role
EVERYBODY = "owner admin developer billing viewer"
MANAGERS = "owner admin"
MAKERS = "owner admin developer"
KEY_VIEWERS = "owner admin viewer"

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
    "console-invitation-resend": ("invitation", {"post": MANAGERS}),
    "console-invitation-withdraw": ("invitation", {"post": MANAGERS}),
    "console-audit": ("", {"get": MANAGERS}),
    "console-settings": ("", {"get": MANAGERS, "post": MANAGERS}),
}
# Whoever has the link, member or not: tested in accounts/tests/test_console_members.py.
OPEN = {"console-invitation", "console-invitation-accept"}


class Scene:
    """An organization with a colleague, a key, an invitation, and the person who asks."""

    def __init__(self, role: str) -> None:
        self.organization: Organization = OrganizationFactory.create()
        self.user: User = UserFactory.create()
        MembershipFactory.create(organization=self.organization, role=Role.OWNER)
        MembershipFactory.create(organization=self.organization, role=role, user=self.user)
        self.member = MembershipFactory.create(organization=self.organization, role=Role.VIEWER)
        self.key = keys.issue(organization=self.organization, name="k", mode="live", created_by=self.member.user).key
        self.invitation = invitations.invite(
            organization=self.organization,
            email="new@example.com",
            role=Role.VIEWER,
            actor=self.member.user,
            may_touch_owners=False,
        )

    def address(self, name: str) -> str:
        """Return the address of a page about what is in the scene."""
        about = TABLE[name][0]
        return reverse(name, args=[getattr(self, about).pk] if about else [])

    def facts(self) -> tuple[Any, ...]:
        """Return everything that a refused request must leave as it was."""
        return (
            Organization.objects.filter(pk=self.organization.pk).values().get(),
            list(Membership.objects.order_by("pk").values("pk", "role")),
            list(self.organization.api_keys.order_by("pk").values("pk", "revoked_at", "replaced_by", "name")),
            list(Invitation.objects.order_by("pk").values("pk", "withdrawn_at", "sent_at")),
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


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
@pytest.mark.parametrize("role", Role.values)
@pytest.mark.parametrize("name", TABLE)
def test_a_cell_of_the_table(name: str, role: str, method: str) -> None:
    scene = Scene(role)
    client = Client()
    client.force_login(scene.user)
    before = scene.facts()
    roles = TABLE[name][1].get(method)

    status = getattr(client, method)(scene.address(name)).status_code

    seen = {role for allowed in TABLE[name][1].values() for role in allowed.split()}
    if roles is None:
        # Who may not come at all is told that first.
        assert status in ({405} if role in seen else {403, 404, 405})
    elif role in roles.split():
        assert status in (200, 302)
        return
    else:
        assert status in (403, 404)
    assert scene.facts() == before


@pytest.mark.parametrize("name", TABLE)
def test_who_belongs_elsewhere_gets_404_or_their_own_page(name: str) -> None:
    scene = Scene(Role.VIEWER)
    stranger = MembershipFactory.create(role=Role.OWNER)
    client = Client()
    client.force_login(stranger.user)
    before = scene.facts()
    for method in TABLE[name][1]:
        assert getattr(client, method)(scene.address(name), {"organization": scene.organization.pk}).status_code == 404
        if TABLE[name][0]:
            assert getattr(client, method)(scene.address(name)).status_code == 404
    assert scene.facts() == before


@pytest.mark.parametrize("name", TABLE)
def test_nobody_comes_in_without_signing_in(name: str) -> None:
    scene = Scene(Role.VIEWER)
    before = scene.facts()
    for method in TABLE[name][1]:
        reply = getattr(Client(), method)(scene.address(name))
        assert (reply.status_code, reply["Location"].partition("?")[0]) == (302, "/accounts/login/")
    assert scene.facts() == before
