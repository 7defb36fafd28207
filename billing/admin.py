"""Staff pages of billing: balances, the ledger, rates, and the one form that adjusts credits."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Organization, User
from accounts.staff import ReadOnlyAdmin
from billing import adjustments, ledger, lookups, topups
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
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import ids


class AdjustForm(forms.Form):
    """How many credits, and why. The reference makes a second click harmless; what was shown before is confirmed."""

    KINDS = ("Purchase", "Goodwill", "Correction", "Failed service", "Contract", "Other")

    amount = forms.IntegerField(
        min_value=-adjustments.MAX_AMOUNT,
        max_value=adjustments.MAX_AMOUNT,
        help_text="Credits to add; negative to take away.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    kind = forms.ChoiceField(
        label="Reason", choices=[(kind, kind) for kind in ("", *KINDS)], widget=UnfoldAdminSelectWidget
    )
    reason = forms.CharField(
        label="In words",
        max_length=adjustments.MAX_REASON_LENGTH - 20,
        help_text="Kept in the ledger for good behind the reason, where the customer reads both.",
        widget=UnfoldAdminTextInputWidget,
    )
    reference = forms.RegexField(
        r"\Aadj_[0-9a-z]+\Z",
        max_length=40,
        widget=forms.HiddenInput,
        error_messages=dict.fromkeys(("invalid", "max_length", "required"), "This page was changed: open it anew."),
    )
    seen = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean_amount(self) -> int:
        """Refuse an adjustment that changes nothing."""
        amount: int = self.cleaned_data["amount"]
        if amount == 0:
            raise forms.ValidationError("Enter an amount other than zero.")
        return amount


class OfAccount:
    """Names the organization instead of its account."""

    @admin.display(description="Organization")
    def organization(self, row: Adjustment | LedgerEntry | Reservation) -> str:
        """Whose credits."""
        return str(row.account.organization)


@admin.register(CreditAccount)
class CreditAccountAdmin(ReadOnlyAdmin):
    """Balances, and the way to adjust one."""

    list_display = ["organization", "available", "reserved", "sequence"]
    list_select_related = ["organization"]
    search_fields = ["organization__name"]
    sortable_by = ("available", "reserved")  # as many rows as customers
    actions_detail = ["adjust"]

    def has_adjust_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Who may move credits: those who were given exactly that permission."""
        return bool(request.user.has_perm("billing.adjust_creditaccount"))

    @action(description="Adjust credits", url_path="adjust", permissions=["adjust"])
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for amount and reason, show what they do, then write one ledger entry."""
        account = CreditAccount.objects.select_related("organization").filter(pk=int(object_id)).first()
        # Who never had credits has no account; the first movement makes it.
        account = account or CreditAccount(organization=get_object_or_404(Organization, pk=int(object_id)))
        form = AdjustForm(request.POST or None, initial={"reference": ids.new("adj")})
        context = {**self.admin_site.each_context(request), "title": "Adjust credits", "account": account, "form": form}
        if request.method != "POST" or not form.is_valid() or "back" in request.POST:
            return render(request, "admin/billing/adjust.html", context)
        values, requested_by = form.cleaned_data, f"user:{request.user.pk}"
        after = account.available + values["amount"]
        if after < 0 and not Adjustment.objects.filter(pk=values["reference"]).exists():
            form.add_error("amount", f"Only {account.available} credits are available.")
        # Whoever confirms has seen this amount; another one is shown anew.
        elif values["seen"] != values["amount"]:
            needs_second = adjustments.needs_second_person(amount=values["amount"], requested_by=requested_by)
            context |= {"is_preview": True, "values": values, "after": after, "needs_second": needs_second}
        else:
            try:
                adjustment = adjustments.request(
                    organization_id=account.pk,
                    amount=values["amount"],
                    reason=f"{values['kind']}: {values['reason']}",
                    requested_by=requested_by,
                    adjustment_id=values["reference"],
                )
            except InsufficientCredits:
                form.add_error("amount", f"Only {account.available} credits are available.")
            except (ValueError, adjustments.NotAllowed) as error:
                form.add_error(None, str(error))
            else:
                return self._requested(request, account, adjustment)
        return render(request, "admin/billing/adjust.html", context)

    def _requested(self, request: HttpRequest, account: CreditAccount, adjustment: Adjustment) -> HttpResponse:
        if adjustment.moved_at:
            available, _ = ledger.balance(organization_id=account.pk)
            messages.success(request, f"{account.organization} now has {available} credits available.")
            return HttpResponseRedirect(reverse("admin:accounts_organization_change", args=[account.pk]))
        messages.warning(request, "This is above the limit: somebody else must approve it before it moves.")
        return HttpResponseRedirect(reverse("admin:billing_adjustment_change", args=[adjustment.pk]))


@admin.register(Adjustment)
class AdjustmentAdmin(OfAccount, ReadOnlyAdmin):
    """Corrections by hand, those that wait for a second person among them."""

    list_display = [
        "created_at",
        "organization",
        "amount",
        "reason",
        "requested_by",
        "approved_by",
        "moved_at",
        "declined_at",
    ]
    list_filter = [("moved_at", admin.EmptyFieldListFilter), ("declined_at", admin.EmptyFieldListFilter)]
    search_fields = ["adjustment_id__exact", "account__organization__name"]
    list_select_related = ["account__organization"]
    ordering = ["-created_at"]
    actions_detail = ["approve", "decline"]

    def has_decide_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Who may approve: those who may adjust credits; that it is somebody else, the domain checks."""
        return bool(request.user.has_perm("billing.adjust_creditaccount"))

    @action(description="Approve", url_path="approve", permissions=["decide"])
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Approve after a confirmation, and move the credits."""
        return self._decide(request, object_id, is_approved=True)

    @action(description="Decline", url_path="decline", permissions=["decide"])
    def decline(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decline after a confirmation; nothing moves."""
        return self._decide(request, object_id, is_approved=False)

    def _decide(self, request: HttpRequest, object_id: str, *, is_approved: bool) -> HttpResponse:
        adjustment = get_object_or_404(Adjustment.objects.select_related("account__organization"), pk=object_id)
        if request.method != "POST":
            title = "Approve this adjustment" if is_approved else "Decline this adjustment"
            context = {**self.admin_site.each_context(request), "title": title, "adjustment": adjustment}
            return render(request, "admin/billing/decide.html", context)
        try:
            if is_approved:
                adjustments.approve(adjustment_id=object_id, approved_by=f"user:{request.user.pk}")
                messages.success(request, "Approved: the credits have moved.")
            else:
                adjustments.decline(adjustment_id=object_id, declined_by=f"user:{request.user.pk}")
                messages.success(request, "Declined: nothing was moved.")
        except adjustments.NotAllowed as error:
            messages.error(request, str(error))
        except InsufficientCredits:
            messages.error(request, "The available credits do not cover this; it stays waiting.")
        return HttpResponseRedirect(reverse("admin:billing_adjustment_change", args=[object_id]))


class GrantForm(forms.Form):
    """How many credits, and what the customer is told."""

    amount = forms.IntegerField(
        min_value=1,
        max_value=topups.MAX_AMOUNT,
        help_text="As asked for, or what you give instead.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    reason = forms.CharField(
        max_length=topups.MAX_TEXT_LENGTH,
        help_text="Stands in the ledger and in the mail to the customer, such as “Invoice 2026-117”.",
        widget=UnfoldAdminTextInputWidget,
    )


class DeclineForm(forms.Form):
    """What the customer is told."""

    reason = forms.CharField(
        max_length=topups.MAX_TEXT_LENGTH,
        help_text="The customer reads it in a mail and on their billing page.",
        widget=UnfoldAdminTextInputWidget,
    )


@admin.register(TopUpRequest)
class TopUpRequestAdmin(ReadOnlyAdmin):
    """Requests for credits, open ones first."""

    list_display = [
        "created_at",
        "organization",
        "amount",
        "note",
        "requested_by",
        "state",
        "adjustment",
        "decided_at",
    ]
    list_filter = ["state"]
    list_select_related = ["account__organization", "requested_by", "adjustment"]
    search_fields = ["account__organization__name", "request_id__exact"]
    ordering = [models.F("decided_at").desc(nulls_first=True), "-request_id"]
    actions_detail = ["grant", "decline"]

    @admin.display(ordering="account__organization__name")
    def organization(self, top_up: TopUpRequest) -> str:
        """Who asks."""
        return str(top_up.account.organization)

    def has_decide_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Who may decide: those who may adjust credits."""
        return bool(request.user.has_perm("billing.adjust_creditaccount"))

    @action(description="Grant", url_path="grant", permissions=["decide"])
    def grant(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Grant after amount and reason."""
        top_up = self._find(object_id)
        form = GrantForm(request.POST or None, initial={"amount": top_up.amount})
        return self._decide(request, top_up, form, "Grant credits")

    @action(description="Decline", url_path="decline", permissions=["decide"])
    def decline(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Decline after a reason."""
        return self._decide(request, self._find(object_id), DeclineForm(request.POST or None), "Decline this request")

    def _find(self, object_id: str) -> TopUpRequest:
        rows = TopUpRequest.objects.select_related("account__organization", "requested_by", "adjustment")
        return get_object_or_404(rows, pk=object_id)

    def _decide(
        self, request: HttpRequest, top_up: TopUpRequest, form: GrantForm | DeclineForm, title: str
    ) -> HttpResponse:
        if request.method != "POST" or not form.is_valid():
            context = {**self.admin_site.each_context(request), "title": title, "top_up": top_up, "form": form}
            return render(request, "admin/billing/decide_top_up.html", context)
        assert isinstance(request.user, User)
        try:
            if isinstance(form, GrantForm):
                top_up = topups.grant(request_id=top_up.pk, granted_by=request.user, **form.cleaned_data)
            else:
                top_up = topups.decline(request_id=top_up.pk, declined_by=request.user, **form.cleaned_data)
        except (topups.NotOpen, adjustments.NotAllowed) as error:
            messages.error(request, str(error))
        else:
            if top_up.state == TopUpRequest.State.OPEN:
                messages.warning(request, "This is above the limit: somebody else must approve the adjustment.")
                return HttpResponseRedirect(reverse("admin:billing_adjustment_change", args=[top_up.adjustment_id]))
            messages.success(request, f"{top_up.account.organization}: {top_up.state}. A mail tells the customer.")
        return HttpResponseRedirect(reverse("admin:billing_topuprequest_change", args=[top_up.pk]))


@admin.register(BalanceAlert)
class BalanceAlertAdmin(ReadOnlyAdmin):
    """The balances at which customers get a mail."""

    list_display = ["organization", "credits", "is_armed", "told_at"]
    list_filter = ["is_armed"]
    list_select_related = ["account__organization"]
    search_fields = ["account__organization__name"]

    @admin.display(ordering="account__organization__name")
    def organization(self, alert: BalanceAlert) -> str:
        """Whose balance."""
        return str(alert.account.organization)


@admin.register(Finding)
class FindingAdmin(ReadOnlyAdmin):
    """What reconciliation found, open discrepancies first."""

    list_display = ["rule", "subject", "detail", "found_at", "seen_at", "resolved_at"]
    list_filter = ["rule", ("resolved_at", admin.EmptyFieldListFilter)]
    search_fields = ["subject"]
    ordering = [models.F("resolved_at").asc(nulls_first=True), "-id"]


@admin.register(LedgerEntry)
class LedgerEntryAdmin(OfAccount, ReadOnlyAdmin):
    """The ledger, newest first; nobody can edit or delete an entry, not even here."""

    list_display = [
        "created_at",
        "organization",
        "sequence",
        "kind",
        "available_change",
        "reserved_change",
        "available_after",
        "reserved_after",
        "reference",
        "actor",
        "reason",
    ]
    list_filter = ["kind"]
    list_select_related = ["account__organization"]
    search_fields = ["reference"]
    search_help_text = "The whole reference: the id of a task, of an adjustment, of a request for credits."
    ordering = ["-id"]

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[LedgerEntry], search_term: str
    ) -> tuple[models.QuerySet[LedgerEntry], bool]:
        """Find entries by what an index leads to."""
        term = search_term.strip()
        if not term:
            return queryset, False
        # First which, then in order: together PostgreSQL might walk the whole ledger from its end instead.
        found = LedgerEntry.objects.filter(lookups.of_reference(term)).values_list("pk", flat=True)
        return queryset.filter(pk__in=list(found)), False


@admin.register(Reservation)
class ReservationAdmin(OfAccount, ReadOnlyAdmin):
    """Holds, open ones and closed ones."""

    list_display = ["reference", "organization", "amount", "state", "created_at", "closed_at"]
    list_filter = ["state"]
    list_select_related = ["account__organization"]
    search_fields = ["reference__exact"]
    search_help_text = "The whole id of the task."
    ordering = ["-reference"]  # the ids of tasks made later sort later, and the primary key is the index there is


@admin.register(Rate)
class RateAdmin(ModelAdmin):
    """Rates: a new price is a new row with a later date, since old tasks keep theirs."""

    list_display = ["model", "resolution", "credits_per_second", "effective_at"]
    list_filter = ["model", "resolution"]
    ordering = ["model", "resolution", "-effective_at"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A rate that was in effect stays as it was."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A rate that was in effect stays."""
        return False
