"""Console pages of statements: a month on one page to print, and as a file."""

import datetime as dt
import re
from typing import ClassVar

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from accounts import roles
from accounts.console import ConsoleView
from billing import history
from generations import statements
from seedancee2.lib import clock, spreadsheets

_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")


class StatementView(ConsoleView):
    """One month: balances, what came in, what was charged by model, what was given back."""

    permission: ClassVar[roles.Permission] = roles.Permission.VIEW_BILLING
    section: ClassVar[str] = "billing"

    def get(self, request: HttpRequest, month: str) -> HttpResponseBase:
        """Show the statement."""
        statement = self.statement(month)
        _, end = history.bounds(statement.month.first)
        return self.page(
            "console/statement.html", statement=statement, now=clock.now(), last_day=end - dt.timedelta(days=1)
        )

    def statement(self, month: str) -> statements.Statement:
        """Return the statement of a month written `2026-07`.

        Raises:
            Http404: there is no such month, or it has not begun.
        """
        try:
            if not _MONTH.fullmatch(month):
                raise Http404
            first = dt.date.fromisoformat(f"{month}-01")
        except ValueError:
            raise Http404 from None
        if first > clock.now().date() or first.year < 2000:
            raise Http404
        return statements.of_month(organization_id=self.membership.organization_id, first=first)


class StatementFileView(StatementView):
    """The statement as CSV."""

    def get(self, request: HttpRequest, month: str) -> HttpResponse | HttpResponseBase:
        """Send its lines: between the two balances they add up to the second one."""
        lines = self.statement(month).lines
        return spreadsheets.reply(f"seedancee2-statement-{month}", ["line", "credits"], lines)
