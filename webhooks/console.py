"""The console's pages about webhooks: what became of them, trying a receiver, sending again, and signing."""

import json
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse

from accounts.console import ConsoleView
from accounts.roles import Permission
from seedancee2.api import cursors
from seedancee2.api.errors import DeliveryNotFound, InvalidRequest, PublicError
from webhooks import deliveries, replies, samples, signing
from webhooks.forms import FilterForm, RecoverForm, RotateForm, SampleForm
from webhooks.models import Delivery


class WebhooksView(ConsoleView):
    """A page of this section."""

    permission: ClassVar[Permission] = Permission.VIEW_WEBHOOKS
    section: ClassVar[str] = "webhooks"


class DeliveriesView(WebhooksView):
    """The deliveries, newest first, with filters that stand in the URL."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show one page of them."""
        form = FilterForm(request.GET)
        found: list[Delivery] = []
        cursor = None
        if form.is_valid():
            try:
                found, cursor = deliveries.page(
                    organization_id=self.membership.organization_id, is_test=form.is_test, wanted=form.wanted()
                )
            except cursors.BadCursor:
                raise Http404 from None
        kept = {name: value for name, value in request.GET.items() if name != "cursor"}
        kept["organization"] = str(self.membership.organization_id)
        return self.page(
            "console/webhooks.html",
            form=form,
            rows=[(row, replies.delivery(row)) for row in found],
            is_filtered=any(value for name, value in kept.items() if name not in ("organization", "mode")),
            newest=f"?{urlencode(kept)}" if request.GET.get("cursor") else "",
            older=f"?{urlencode({**kept, 'cursor': cursor})}" if cursor else "",
        )


class DeliveryView(WebhooksView):
    """One delivery with its attempts, and the button that sends it again."""

    def get(self, request: HttpRequest, delivery_id: str) -> HttpResponse:
        """Show it."""
        row = self._find(delivery_id)
        shown = replies.delivery_in_full(row, attempts := deliveries.attempts(row))
        return self.page(
            "console/webhook.html",
            delivery=row,
            shown=shown,
            attempts=[(one, replies.problem(one.status_code, one.error)) for one in reversed(attempts)],
            body=json.dumps(shown["body"], indent=2, ensure_ascii=False) if shown["body"] is not None else "",
        )

    def post(self, request: HttpRequest, delivery_id: str) -> HttpResponse:
        """Have it sent again."""
        if not self.may(Permission.REDELIVER_WEBHOOKS):
            raise PermissionDenied
        row = self._find(delivery_id)
        try:
            deliveries.redeliver(
                organization_id=row.organization_id, is_test=row.is_test, delivery_id=row.pk, actor=self.user
            )
        except PublicError as error:
            messages.error(request, error.message)
        else:
            messages.success(request, "It is being sent again. Load this page again to see the new attempt.")
        return self.to("console-webhook", row.pk)

    def _find(self, delivery_id: str) -> Delivery:
        for is_test in (False, True):
            try:
                return deliveries.get(
                    organization_id=self.membership.organization_id, is_test=is_test, delivery_id=delivery_id
                )
            except DeliveryNotFound:
                continue
        raise Http404


class SampleView(WebhooksView):
    """A test webhook, and what came of it."""

    permission: ClassVar[Permission] = Permission.REDELIVER_WEBHOOKS

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form."""
        return self.page("console/webhook_test.html", form=SampleForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Send it, and show what happened; nothing is kept, so this reply is the only place."""
        form = SampleForm(request.POST)
        sample = None
        if form.is_valid():
            try:
                sent = samples.send(organization=self.membership.organization, **form.cleaned_data)
                sample = replies.sample(sent)
            except PublicError as error:
                form.add_error("url" if isinstance(error, InvalidRequest) else None, error.message)
        return self.page("console/webhook_test.html", form=form, sample=sample)


class RecoverView(WebhooksView):
    """All failed deliveries since a time, sent again."""

    permission: ClassVar[Permission] = Permission.REDELIVER_WEBHOOKS

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form."""
        return self.page("console/webhooks_recover.html", form=RecoverForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Open them again."""
        form = RecoverForm(request.POST)
        if form.is_valid():
            mode = form.cleaned_data["mode"]
            try:
                recovery = deliveries.recover(
                    organization_id=self.membership.organization_id,
                    is_test=mode == "test",
                    since=form.cleaned_data["since"],
                    actor=self.user,
                )
            except PublicError as error:
                form.add_error("since", error.message)
            else:
                messages.success(request, recovery.sentence)
                return self.to("console-webhooks", mode=mode, state="pending")
        return self.page("console/webhooks_recover.html", form=form)


class SigningView(WebhooksView):
    """Whether webhooks are signed, and the switch."""

    permission: ClassVar[Permission] = Permission.MANAGE_SIGNING

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show how webhooks are signed, without a secret."""
        return self.signing_page()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Switch signing on or off."""
        wanted = request.POST.get("signing")
        if wanted not in ("on", "off"):
            raise Http404
        signing.switch(organization=self.membership.organization, is_enabled=wanted == "on", actor=self.user)
        messages.success(request, f"Signing is {wanted} now, for every attempt from here on.")
        return self.to("console-webhook-signing")

    def signing_page(self, **context: Any) -> HttpResponse:
        """Show the page with what else there is to show."""
        state = signing.look(self.membership.organization)
        return self.page("console/webhook_signing.html", **{"signing": state, "form": RotateForm(), **context})


class SecretView(SigningView):
    """The secret, shown because somebody asked for it."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Show it in this reply, which no cache keeps."""
        return self.signing_page(secret=signing.reveal(organization=self.membership.organization, actor=self.user))


class RotateView(SigningView):
    """A new secret."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make it, with the overlap that was chosen; it is shown by the button that shows secrets."""
        form = RotateForm(request.POST)
        if not form.is_valid():
            return self.signing_page(form=form)
        overlap = form.cleaned_data["overlap"]
        signing.rotate(organization=self.membership.organization, overlap_seconds=overlap, actor=self.user)
        old = (
            f"The old one goes on signing beside it for {signing.OVERLAPS[overlap]}." if overlap else "It signs alone."
        )
        messages.success(request, f"There is a new secret. {old}")
        return self.to("console-webhook-signing")
