"""Console pages of the playground: the form, what it costs and says, and the video that comes of it."""

import re
import time
import uuid
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest, HttpResponse

from accounts import audit, roles
from accounts.models import ApiKey
from billing import allowances
from billing.models import CreditAccount
from generations import idempotency, lifecycle, payloads, playground, snippets
from generations.console_tasks import LiveView, Media
from generations.models import Generation
from generations.playground import PlaygroundForm
from seedancee2.api import ratelimits, rendering
from seedancee2.api.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidRequest,
    PublicError,
    RateLimitExceeded,
)
from seedancee2.lib import clock

LAST_TASKS = 8
KEYS_OFFERED = 50
_TOKEN = re.compile(r"[0-9a-f]{32}")
# A second click comes while the first request is under way, which takes some milliseconds.
_TRIES, _PAUSE_SECONDS = 20, 0.1


class _Scope(NamedTuple):
    organization_id: int
    is_test: bool


class PlaygroundView(LiveView):
    """The form of the playground."""

    permission: ClassVar[roles.Permission] = roles.Permission.GENERATE
    section: ClassVar[str] = "playground"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form: empty, or as an earlier task was asked for; and that task, if it is to be followed."""
        values = playground.beginning()
        shown = request.GET.get("task", "")
        if public_id := shown or request.GET.get("from", ""):
            task = self.find_task(public_id)
            values = playground.repeating(task)
            return self._page(self._form(initial=values), task=task if shown else None)
        return self._page(self._form(initial=values))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make the video, or only tell what the form as it stands would cost and say."""
        if request.POST.get("do") != "send":
            return self._page(self._form(playground.fitted(request.POST)))
        form = self._form(request.POST)
        token = request.POST.get("token", "")
        if not _TOKEN.fullmatch(token):
            form.add_error(None, "This form was out of date. Nothing was made yet: look it through and send it again.")
            return self._page(form)
        if self.membership.organization.is_suspended:
            form.add_error(
                None, "The organization is suspended, so that no videos can be made. Ask the Seedancee2 team."
            )
            return self._page(form, token=token)
        try:
            public_id = self._make(form, token)
        except InvalidRequest as error:
            if form.is_valid():  # its problem belongs to none of the fields
                form.add_error(None, error.message)
        except IdempotencyKeyReused:
            form.add_error(None, "This form was sent before with other values. Send it again to make another video.")
            token = ""
        except RateLimitExceeded:
            form.add_error(None, "Too many videos within a minute. Wait a little, and send it again.")
        except PublicError as error:
            form.add_error(None, error.message)
            return self._page(form, token=token, is_too_poor=isinstance(error, InsufficientCredits))
        else:
            return self.to("console-playground", task=public_id)
        return self._page(form, token=token)

    def _form(self, *values: Any, **more: Any) -> PlaygroundForm:
        """Make the form; where caps are demanded, who cannot exempt themselves needs a key that has one."""
        demands_key = self.membership.organization.demands_key_caps and not self.may(roles.Permission.MANAGE_ALL_KEYS)
        own = roles.visible_keys(self.membership).filter(
            Q(expires_at=None) | Q(expires_at__gt=clock.now()),
            created_by=self.user.pk,
            mode=ApiKey.Mode.LIVE,
            revoked_at=None,
            scopes__contains=[ApiKey.Scope.GENERATE],
        )
        if demands_key:
            own = own.filter(monthly_credit_cap__isnull=False)
        return PlaygroundForm(*values, keys=list(own[:KEYS_OFFERED]), demands_key=demands_key, **more)

    def _make(self, form: PlaygroundForm, token: str) -> str:
        """Make the task of a form, or return the one that the same form made before."""
        organization = self.membership.organization
        spec = form.read(callback_hosts=organization.callback_hosts).checked_spec()
        limiting = form.limiting_key()
        limit = organization.create_rate_limit or settings.RATE_LIMIT_CREATES
        if limiting and limiting.create_rate_limit:
            limit = min(limit, limiting.create_rate_limit)
        ratelimits.take(bucket=f"playground:{organization.pk}", identity=self.user.pk, per_minute=limit)
        scope = _Scope(organization.pk, form.is_test)

        def make() -> idempotency.Answer:
            task = lifecycle.create(
                organization_id=organization.pk,
                api_key_id=None,
                is_test=form.is_test,
                spec=spec,
                created_by_id=self.user.pk,
                allowed_models=limiting.allowed_models if limiting else (),
                allowance=allowances.of(limiting) if limiting else None,
            )
            audit.note(
                organization_id=organization.pk,
                actor=self.user,
                action="task.created",
                target=task.public_id,
                after={
                    "model": task.model,
                    "mode": form["mode"].value(),
                    "credits": task.credits,
                    **({"within the limits of": f"{limiting.name} ({limiting.masked})"} if limiting else {}),
                },
            )
            body = rendering.encode({"data": payloads.created(task)}).decode()
            return idempotency.Answer(reference=task.public_id, body=body)

        key = f"playground:{self.user.pk}:{token}"
        for _ in range(_TRIES):
            try:
                return idempotency.once(client=scope, key=key, body=form.body(), make=make).reference
            except IdempotencyKeyInUse:
                time.sleep(_PAUSE_SECONDS)
        raise IdempotencyKeyInUse("The same request is being taken just now. Look at your last videos below.")

    def _page(
        self, form: PlaygroundForm, *, token: str = "", task: Generation | None = None, is_too_poor: bool = False
    ) -> HttpResponse:
        body = form.body()
        context: dict[str, Any] = {
            "form": form,
            "has_keys": bool(form.keys) or form.demands_key,
            "price": form.price(),
            "snippets": snippets.create(body, base_url=settings.PUBLIC_BASE_URL, is_test=form.is_test),
            "available": self._available(),
        }
        if self.request.htmx:
            is_of_model = self.request.htmx.target == "limits"
            return self.page("console/playground_preview.html", is_of_model=is_of_model, **context)
        return self.page(
            "console/playground.html",
            token=token or uuid.uuid4().hex,
            **(result_of(task) if task else {}),
            last_tasks=self._last_tasks(),
            is_too_poor=is_too_poor,
            has_reference_errors=form.has_errors_in(*(field.name for field in form.reference_fields)),
            has_more_errors=form.has_errors_in(*(field.name for field in form.more_fields)),
            **context,
        )

    def _available(self) -> int | None:
        if not self.may(roles.Permission.VIEW_BILLING):
            return None
        account = CreditAccount.objects.filter(pk=self.membership.organization_id).values_list("available", flat=True)
        return next(iter(account), 0)

    def _last_tasks(self) -> list[Generation]:
        own = Generation.objects.filter(organization_id=self.membership.organization_id, created_by_id=self.user.pk)
        return list(own.order_by("-created_at", "-public_id")[:LAST_TASKS])


class ResultView(LiveView):
    """What came of a task: the part of the playground that is fetched anew until it has ended."""

    permission: ClassVar[roles.Permission] = roles.Permission.GENERATE
    section: ClassVar[str] = "playground"

    def get(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Show the part; asked for as a page, lead to the whole."""
        task = self.find_task(public_id)
        if not self.request.htmx:
            return self.to("console-playground", task=public_id)
        return self.page("console/playground_result.html", **result_of(task))


def result_of(task: Generation) -> dict[str, Any]:
    """Return what the part about a task shows."""
    return {"task": task, "media": Media.of(task, list(task.assets.all()), days=None)}
