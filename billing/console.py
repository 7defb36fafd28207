"""Console pages about credits: balance, ledger, requests for more, and mails at low balances."""

from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts import roles
from accounts.console import ConsoleView
from billing import alerts, history, ledger, topups
from billing.forms import AlertForm, LedgerForm, TopUpForm
from billing.models import BalanceAlert, TopUpRequest
from seedancee2.lib import clock, spreadsheets

HOLDS_SHOWN = 100
LINES_SHOWN = 8
MONTHS_SHOWN = 24
LINES_ON_A_PAGE = 50

LEDGER_COLUMNS = (
    "number",
    "time",
    "movement",
    "task",
    "reference",
    "available_change",
    "held_change",
    "available_after",
    "held_after",
    "balance_after",
    "reason",
)


class BillingPage(ConsoleView):
    """What every page about credits shares."""

    permission: ClassVar[roles.Permission] = roles.Permission.VIEW_BILLING
    section: ClassVar[str] = "billing"

    @property
    def organization_id(self) -> int:
        """The organization that the page is about."""
        return self.membership.organization_id

    def require(self, permission: roles.Permission) -> None:
        """Refuse who may see the page but not do this.

        Raises:
            PermissionDenied: the role does not include it.
        """
        if not self.may(permission):
            raise PermissionDenied

    def overview(self, **forms: Any) -> HttpResponse:
        """Render the billing page, with forms that were sent and refused."""
        available, held = ledger.balance(organization_id=self.organization_id)
        return self.page(
            "console/billing.html",
            available=available,
            held=held,
            balance=available + held,
            holds=history.open_holds(organization_id=self.organization_id, limit=HOLDS_SHOWN),
            lines=history.page(organization_id=self.organization_id, wanted=history.Wanted(), limit=LINES_SHOWN).lines,
            months=history.months(organization_id=self.organization_id)[:MONTHS_SHOWN],
            top_up=topups.latest(organization_id=self.organization_id),
            alerts=alerts.of(organization_id=self.organization_id),
            **{"top_up_form": TopUpForm(), "alert_form": AlertForm(), **forms},
        )


class BillingView(BillingPage):
    """Balance, holds, newest movements and statements at a glance."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the page."""
        return self.overview()


class LedgerView(BillingPage):
    """The ledger with its running balance."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show one page of it."""
        form = LedgerForm(request.GET)
        is_valid = form.is_valid()
        wanted = form.wanted() if is_valid else history.Wanted()
        page = history.page(organization_id=self.organization_id, wanted=wanted, limit=LINES_ON_A_PAGE)
        kept = {name: request.GET[name] for name in form.fields if request.GET.get(name)}
        query = urlencode({"organization": self.organization_id, **kept})
        return self.page("console/ledger.html", form=form, page_of_lines=page, query=query, is_filtered=bool(kept))


class LedgerFileView(BillingPage):
    """The same movements as a file."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Send every movement that the filters let through, oldest first."""
        form = LedgerForm(request.GET)
        if not form.is_valid():
            raise Http404
        found = history.lines(organization_id=self.organization_id, wanted=form.wanted())
        return spreadsheets.reply("seedancee2-ledger", LEDGER_COLUMNS, map(_cells, found))


class TopUpView(BillingPage):
    """A request for credits."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Ask the staff for credits."""
        self.require(roles.Permission.REQUEST_CREDITS)
        form = TopUpForm(request.POST)
        if not form.is_valid():
            return self.overview(top_up_form=form)
        try:
            asked = topups.ask(organization_id=self.organization_id, asked_by=self.user, **form.cleaned_data)
        except topups.AlreadyOpen as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"You asked for {asked.amount:,} credits. You get a mail once it is decided.")
        return self.to("console-billing", anchor="top-up")


class WithdrawTopUpView(BillingPage):
    """The end of a request that is not wanted any more."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, request_id: str) -> HttpResponse:
        """Take the request back."""
        self.require(roles.Permission.REQUEST_CREDITS)
        try:
            topups.withdraw(organization_id=self.organization_id, request_id=request_id, withdrawn_by=self.user)
        except TopUpRequest.DoesNotExist:
            raise Http404 from None
        except topups.NotOpen as error:
            messages.error(request, str(error))
        else:
            messages.success(request, "The request is withdrawn.")
        return self.to("console-billing", anchor="top-up")


class AddAlertView(BillingPage):
    """A balance at which a mail is sent."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Add it."""
        self.require(roles.Permission.SET_BALANCE_ALERTS)
        form = AlertForm(request.POST)
        if not form.is_valid():
            return self.overview(alert_form=form)
        try:
            alert = alerts.add(organization_id=self.organization_id, added_by=self.user, **form.cleaned_data)
        except alerts.Refused as error:
            form.add_error("credits", str(error))
            return self.overview(alert_form=form)
        messages.success(request, f"A mail is sent once fewer than {alert.credits:,} credits are available.")
        return self.to("console-billing", anchor="alerts")


class RemoveAlertView(BillingPage):
    """The end of such a mail."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, alert_id: int) -> HttpResponse:
        """Remove it."""
        self.require(roles.Permission.SET_BALANCE_ALERTS)
        try:
            alert = alerts.remove(organization_id=self.organization_id, alert_id=alert_id, removed_by=self.user)
        except BalanceAlert.DoesNotExist:
            raise Http404 from None
        messages.success(request, f"No mail is sent below {alert.credits:,} credits any more.")
        return self.to("console-billing", anchor="alerts")


def _cells(line: history.Line) -> list[object]:
    entry = line.entry
    return [
        entry.sequence,
        clock.iso(entry.created_at),
        line.label,
        line.task_id,
        entry.reference,
        entry.available_change,
        entry.reserved_change,
        entry.available_after,
        entry.reserved_after,
        entry.available_after + entry.reserved_after,
        line.reason,
    ]
