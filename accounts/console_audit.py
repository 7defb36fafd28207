"""The console's page of the audit log: newest first, with filters in the address, and as CSV."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from django import forms
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import urlencode

from accounts import audit, roles
from accounts.console import ConsoleView
from accounts.models import AuditEntry
from seedancee2.lib import spreadsheets

ON_A_PAGE = 50
IN_A_CHUNK = 1000
OUR_TEAM = "the Seedancee2 team"
OUR_SYSTEM = "Seedancee2"

_HEADER = ("time", "person", "action", "what", "before", "after", "reason", "address")
_PARAMETERS = ("person", "action", "since", "until")


class Shown(NamedTuple):
    """An entry as customers read it: nothing of our staff but that it was them."""

    entry: AuditEntry
    person: str
    action: str
    changes: list[tuple[str, str, str]]
    reason: str
    address: str


class Filters(forms.Form):
    """What of the log is wanted; what makes no sense is left out of the search."""

    person = forms.ChoiceField(required=False)
    action = forms.ChoiceField(required=False)
    since = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, *args: Any, people: list[tuple[str, str]], actions: list[tuple[str, str]]) -> None:
        super().__init__(*args)
        self.fields["person"].choices = [("", "Everybody"), *people]  # type: ignore[attr-defined] # a plain Field to the stubs
        self.fields["action"].choices = [("", "Every action"), *actions]  # type: ignore[attr-defined] # the same


class AuditView(ConsoleView):
    """The log of what people changed in the organization."""

    section: ClassVar[str] = "audit"
    permission: ClassVar[roles.Permission] = roles.Permission.VIEW_AUDIT

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Show a page of the log, or all that the filters let through as CSV."""
        everything = audit.told_to_customer(self.membership.organization_id)
        form = Filters(request.GET, people=_people(everything), actions=_actions(everything))
        form.is_valid()
        entries = _filtered(everything, form.cleaned_data).order_by("-pk")
        if request.GET.get("format") == "csv":
            return _download(entries)
        return self._page(form, entries)

    def _page(self, form: Filters, entries: QuerySet[AuditEntry]) -> HttpResponse:
        before = self.request.GET.get("before", "")
        if before.isascii() and before.isdigit() and len(before) < 19:
            entries = entries.filter(pk__lt=int(before))
        found = list(entries[: ON_A_PAGE + 1])
        kept = {name: self.request.GET[name] for name in _PARAMETERS if self.request.GET.get(name)}
        here = {"organization": str(self.membership.organization_id)}
        more = {**kept, "before": str(found[ON_A_PAGE - 1].pk)} if len(found) > ON_A_PAGE else None
        return self.page(
            "console/audit.html",
            form=form,
            is_filtered=bool(kept),
            entries=[shown(entry) for entry in found[:ON_A_PAGE]],
            newest=f"?{urlencode({**here, **kept})}" if before else None,
            older=f"?{urlencode({**more, **here})}" if more else None,
            download=f"?{urlencode({**here, **kept, 'format': 'csv'})}",
        )


def shown(entry: AuditEntry) -> Shown:
    """Put an entry into words that customers may read."""
    is_ours = entry.is_by_staff or entry.actor_name == audit.SYSTEM
    name = OUR_TEAM if entry.is_by_staff else OUR_SYSTEM if is_ours else entry.actor_name
    return Shown(
        entry=entry,
        person=name,
        action=worded(entry.action),
        changes=_changes(entry.before, entry.after),
        # What our staff write down is for our staff, and so is where they sit.
        reason="" if is_ours else entry.reason,
        address="" if is_ours else entry.address or "",
    )


def worded(action: str) -> str:
    """Write `member.role_changed` as people read it."""
    return action.replace(".", " ").replace("_", " ").capitalize()


def _people(entries: QuerySet[AuditEntry]) -> list[tuple[str, str]]:
    names = entries.filter(is_by_staff=False).order_by("actor_name").values_list("actor_name", flat=True).distinct()
    people = [(name, OUR_SYSTEM if name == audit.SYSTEM else name) for name in names]
    return [*people, (OUR_TEAM, OUR_TEAM)] if entries.filter(is_by_staff=True).exists() else people


def _actions(entries: QuerySet[AuditEntry]) -> list[tuple[str, str]]:
    found = entries.order_by("action").values_list("action", flat=True).distinct()
    return [(action, worded(action)) for action in found]


def _filtered(entries: QuerySet[AuditEntry], wanted: Mapping[str, Any]) -> QuerySet[AuditEntry]:
    if person := wanted.get("person"):
        # By name, entries of customers alone: an address of our staff must find nothing.
        is_team = person == OUR_TEAM
        entries = entries.filter(is_by_staff=True) if is_team else entries.filter(is_by_staff=False, actor_name=person)
    if action := wanted.get("action"):
        entries = entries.filter(action=action)
    if since := wanted.get("since"):
        entries = entries.filter(created_at__gte=_midnight(since))
    if until := wanted.get("until"):
        entries = entries.filter(created_at__lt=_midnight(until) + dt.timedelta(days=1))
    return entries


def _midnight(day: dt.date) -> dt.datetime:
    day = min(max(day, dt.date(2000, 1, 1)), dt.date(2200, 1, 1))
    return dt.datetime.combine(day, dt.time.min, tzinfo=dt.UTC)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(name.replace("_", " "), _text(before.get(name)), _text(after.get(name))) for name in {**before, **after}]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], {}):
        return ""
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _download(entries: QuerySet[AuditEntry]) -> HttpResponseBase:
    return spreadsheets.reply("audit-log", _HEADER, map(_cells, map(shown, _in_chunks(entries))))


def _in_chunks(entries: QuerySet[AuditEntry]) -> Iterator[AuditEntry]:
    chunk = list(entries[:IN_A_CHUNK])
    while chunk:
        yield from chunk
        chunk = list(entries.filter(pk__lt=chunk[-1].pk)[:IN_A_CHUNK])


def _cells(row: Shown) -> tuple[str, ...]:
    before = "; ".join(f"{name}: {old}" for name, old, _ in row.changes if old)
    after = "; ".join(f"{name}: {new}" for name, _, new in row.changes if new)
    time = f"{row.entry.created_at:%Y-%m-%dT%H:%M:%SZ}"
    return (time, row.person, row.entry.action, row.entry.target, before, after, row.reason, row.address)
