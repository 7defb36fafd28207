"""Every form of the admin that writes: its audit entry is written in the same transaction, or nothing is."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import DatabaseError
from django.forms import MultiWidget
from django.test import Client, RequestFactory

from accounts.models import AuditEntry, User
from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from generations.models import ModelAlias, PublicModel
from providers.models import Channel, Route
from tests.planted import MESSAGE, refuse_rows

pytestmark = pytest.mark.django_db

ROUTE = {"model": "mini", "traffic": "live", "upstream_model": "sandbox-mini", "priority": "7", "weight": "1"}
CHANNEL = {"name": "second", "adapter": "sandbox", "state": "active", "unknown_policy": "fail", "options": "{}"}
MODEL = {"name": "ultra", "position": "9", "resolutions": "480p", "min_duration": "4", "max_duration": "15"}
# What the page before has told.
SEEN_NEW = (
    "Requests for ultra at 480p are taken, but have no rate yet: add one first."
    "|A video may last 4 to 15 seconds.|In the list of models ultra stands at position 9."
)
SEEN = "In the list of models mini stands at position 77."


def a_key() -> Any:
    organization = OrganizationFactory.create()
    issue_key(organization)
    return organization.api_keys.get()


# What is posted to add one and to change one, over what the page has filled in, and what makes a row to change.
Row = tuple[dict[str, str], dict[str, str], Callable[[], Any]]
AUDITED: dict[str, Row] = {
    "accounts.apikey": ({}, {"create_rate_limit": "7"}, a_key),
    "accounts.organization": ({"name": "Loom"}, {"create_rate_limit": "7"}, OrganizationFactory.create),
    "accounts.user": (
        {"email": "new@seedancee2.example", "usable_password": "false"},
        {"name": "Ada"},
        UserFactory.create,
    ),
    "auth.group": ({"name": "auditors"}, {"name": "keepers"}, lambda: Group.objects.create(name="readers")),
    "mfa.authenticator": (
        {},
        {},
        lambda: Authenticator.objects.create(user=UserFactory.create(), type="totp", data={}),
    ),
    "generations.modelalias": (
        {"alias": "older", "model": "mini"},
        {"model": "fast"},
        lambda: ModelAlias.objects.create(alias="old", model_id="mini"),
    ),
    "generations.publicmodel": (
        MODEL | {"reason": "new", "seen": SEEN_NEW},
        {"position": "77", "reason": "order", "seen": SEEN},
        lambda: PublicModel.objects.get(pk="mini"),
    ),
    "providers.channel": (
        CHANNEL | {"unknown_grace_seconds": "900"},
        {"max_open": "3"},
        lambda: Channel.objects.create(name="first", adapter="sandbox"),
    ),
    "providers.route": (
        ROUTE,
        {"priority": "7"},
        lambda: Route.objects.create(
            model="fast", traffic="live", channel=Channel.objects.get(name="sandbox"), upstream_model="sandbox-fast"
        ),
    ),
}
# Pages of their own, with tests of their own: seedancee2/console/tests/test_staff_front.py.
ELSEWHERE = {"billing.rate"}


@pytest.fixture
def staff(client: Client) -> User:
    """A superuser, signed in."""
    user: User = UserFactory.create(is_staff=True, is_superuser=True)
    client.force_login(user)
    return user


def written(label: str, user: User) -> set[str]:
    """Return what a superuser may do with the forms of a model."""
    request = RequestFactory().get("/admin/")
    request.user = user
    (model_admin,) = (one for model, one in admin.site._registry.items() if model._meta.label_lower == label)
    return {what for what in ("add", "change", "delete") if getattr(model_admin, f"has_{what}_permission")(request)}


def filled_in(reply: Any) -> dict[str, Any]:
    """Return what a browser would post of a page where nobody touches anything."""
    forms = [reply.context["adminform"].form]
    for formset in reply.context["inline_admin_formsets"]:
        forms += [formset.formset.management_form, *formset.formset.initial_forms]
    values: dict[str, Any] = {}
    for form in forms:
        for field in form:
            value = field.value()
            if isinstance(field.field.widget, MultiWidget):
                parts = field.field.widget.decompress(value) or []
                values |= {f"{field.html_name}_{number}": part or "" for number, part in enumerate(parts)}
            elif value is not None and value is not False:
                values[field.html_name] = json.dumps(value) if isinstance(value, dict) else value
    return values


def test_every_admin_that_writes_is_known_here(staff):
    writing = {
        model._meta.label_lower for model in admin.site._registry if written(model._meta.label_lower, staff) != set()
    }

    assert writing == AUDITED.keys() | ELSEWHERE


def posts(client: Client, staff: User, label: str) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """Make a row, and return it with every form that a superuser can send about it and its like."""
    adding, changing, make = AUDITED[label]
    row, may = make(), written(label, staff)
    path = f"/admin/{label.replace('.', '/')}/"
    if label == "providers.route":
        adding = adding | {"channel": str(Channel.objects.get(name="sandbox").pk)}
    found: list[tuple[str, dict[str, Any]]] = []
    if "add" in may:
        found.append((f"{path}add/", filled_in(client.get(f"{path}add/")) | adding))
    if "change" in may:
        found.append((f"{path}{row.pk}/change/", filled_in(client.get(f"{path}{row.pk}/change/")) | changing))
    if "delete" in may:
        found.append((path, {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"}))
        found.append((f"{path}{row.pk}/delete/", {"post": "yes"}))
    return row, found


@pytest.mark.parametrize("label", AUDITED)
def test_each_form_writes_its_entry(client, staff, label):
    row, forms = posts(client, staff, label)
    count = AuditEntry.objects.count()
    for url, form in forms:
        if url.endswith("/delete/") and not type(row).objects.filter(pk=row.pk).exists():
            row.save(force_insert=True)  # it was deleted by the list's action
        reply = client.post(url, form)
        wrong = reply.context["adminform"].form.errors if reply.context and "adminform" in reply.context else ""
        count += 1

        assert reply.status_code == 302, (url, wrong)
        assert AuditEntry.objects.count() == count, url
        assert AuditEntry.objects.latest("id").actor_id == staff.pk


@pytest.mark.parametrize("label", AUDITED)
def test_no_form_writes_without_its_entry(client, staff, label):
    row, forms = posts(client, staff, label)
    before = list(type(row).objects.order_by("pk").values())
    refuse_rows("accounts_auditentry")

    assert forms
    for url, form in forms:
        with pytest.raises(DatabaseError, match=MESSAGE):
            client.post(url, form)
        assert list(type(row).objects.order_by("pk").values()) == before, url
