"""Console pages about tasks: the list, its export, one task, and its deletion."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlencode

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from accounts import roles
from accounts.console import ConsoleView
from accounts.models import ApiKey
from accounts.roles import visible_keys
from generations import deletion, histories, payloads, retention, search, snippets
from generations.models import Generation, OutputAsset, RetentionMark
from generations.task_forms import TaskFilterForm
from seedancee2.api import cursors
from seedancee2.lib import clock, ids, spreadsheets
from webhooks.models import Delivery

TASKS_ON_A_PAGE = 50
KEYS_IN_THE_FILTER = 200

_COLUMNS = (
    *("id", "created_at", "status", "mode", "model", "duration", "resolution", "aspect_ratio", "credits"),
    *("credits_refunded", "started_at", "finished_at", "error_code", "made_by", "prompt", "callback_url", "metadata"),
)


class LiveView(ConsoleView):
    """A page of which parts are fetched anew; one whose session has ended leads to the sign-in as a whole."""

    request: Any  # django-htmx adds to it what it says of itself

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Serve the page, or the part that was asked for."""
        response = super().dispatch(request, *args, **kwargs)
        is_part = bool(self.request.htmx)
        return HttpResponseClientRedirect(response["Location"]) if is_part and response.status_code == 302 else response

    def find_task(self, public_id: str) -> Generation:
        """Return a task of the organization, live or test.

        Raises:
            Http404: malformed, unknown, or another's.
        """
        if not ids.is_valid(public_id, "vid"):
            raise Http404
        own = Generation.objects.filter(organization_id=self.membership.organization_id)
        return get_object_or_404(own.select_related("api_key", "created_by"), pk=public_id)

    def maker_of(self, task: Generation) -> str:
        """Say who made a task, as far as the person may know the keys of others."""
        key = task.api_key
        if key is not None:
            is_visible = key.created_by_id == self.user.pk or self.may(roles.Permission.VIEW_ALL_KEYS)
            return f"{key.name} (…{key.last_four})" if is_visible else "another key"
        if task.created_by_id == self.user.pk:
            return "playground, you"
        if task.created_by is None:
            return "playground"
        # Customers are told of our staff as a team, never by address.
        return f"playground, {'the Seedancee2 team' if task.created_by.is_staff else task.created_by.email}"


class FilteredView(LiveView):
    """What shows the tasks that the filters of its address choose."""

    section: ClassVar[str] = "tasks"

    def filters(self) -> TaskFilterForm:
        """Read the filters of the address."""
        keys: list[ApiKey] = list(visible_keys(self.membership)[:KEYS_IN_THE_FILTER])
        return TaskFilterForm(self.request.GET, keys=keys)


class TasksView(FilteredView):
    """The organization's tasks, newest first."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show a page of the list, or only its table."""
        form = self.filters()
        found = search.Found([])
        cursor = request.GET.get("cursor") or None
        if form.is_valid():
            found = self._page(form.wanted(), cursor)
        kept = {name: value for name, value in request.GET.items() if value and name not in ("cursor", "organization")}
        here = {**kept, "organization": str(self.membership.organization_id)}
        template = "console/tasks_table.html" if self.request.htmx else "console/tasks.html"
        return self.page(
            template,
            form=form,
            rows=[(task, task.input, self.maker_of(task)) for task in found.tasks],
            looked_back_to=found.looked_back_to,
            is_live=any(task.is_open for task in found.tasks),
            is_filtered=bool(kept),
            is_first_page=cursor is None,
            newest=urlencode(here),
            next=urlencode({**here, "cursor": found.cursor}) if found.cursor else "",
            this=urlencode({**here, "cursor": cursor} if cursor else here),
        )

    def _page(self, wanted: search.Wanted, cursor: str | None) -> search.Found:
        organization_id = self.membership.organization_id
        try:
            return search.page(organization_id=organization_id, wanted=wanted, limit=TASKS_ON_A_PAGE, cursor=cursor)
        except cursors.BadCursor:
            raise Http404 from None


class ExportTasksView(FilteredView):
    """The list as a file for spreadsheets."""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Send every task that the filters choose."""
        form = self.filters()
        if not form.is_valid():
            return self.to("console-tasks", **{name: request.GET[name] for name in form.fields if name in request.GET})
        rows = map(self._cells, search.every(organization_id=self.membership.organization_id, wanted=form.wanted()))
        name = f"seedancee2-tasks-{clock.now():%Y-%m-%d}"
        return spreadsheets.reply(name, _COLUMNS, rows)

    def _cells(self, task: Generation) -> tuple[object, ...]:
        return (
            *(task.public_id, clock.iso(task.created_at), task.status, "test" if task.is_test else "live", task.model),
            *(task.input[name] for name in ("duration", "resolution", "aspect_ratio")),
            *(task.credits, task.credits_refunded),
            *(clock.iso(moment) if moment else "" for moment in (task.started_at, task.finished_at)),
            *(task.error_code, self.maker_of(task), task.input["prompt"], task.callback_url),
            json.dumps(task.metadata, ensure_ascii=False) if task.metadata else "",
        )


class TaskView(LiveView):
    """One task: its video, what was asked and answered, and what became of it."""

    section: ClassVar[str] = "tasks"

    def get(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Show the task, or only the part that changes while it is open."""
        task = self.find_task(public_id)
        webhooks = histories.deliveries(task)
        files = list(task.assets.all())
        body = payloads.request(task)
        may_bill = self.may(roles.Permission.VIEW_BILLING)
        may_see_webhooks = self.may(roles.Permission.VIEW_WEBHOOKS)
        is_all_deleted = bool(task.prompt_deleted_at) and all(file.deletion_asked_at for file in files)
        return self.page(
            "console/task_live.html" if self.request.htmx else "console/task.html",
            task=task,
            media=Media.of(task, files, days=self._days_kept()),
            maker=self.maker_of(task),
            request_body=_json(body),
            reply_body=_json({"data": payloads.task(task, files)}),
            snippets=snippets.create(body, base_url=settings.PUBLIC_BASE_URL, is_test=task.is_test),
            steps=histories.timeline(task, webhooks),
            movements=histories.movements(task) if may_bill else [],
            webhooks=[(delivery, _delivery_address(delivery)) for delivery in webhooks] if may_see_webhooks else [],
            problem_link=self._problem_link(task),
            can_be_deleted=not task.is_open and not is_all_deleted,
        )

    def _days_kept(self) -> int | None:
        return retention.days_kept(self.membership.organization, RetentionMark.Subject.MEDIA)

    def _problem_link(self, task: Generation) -> str:
        facts = {
            "Task": task.public_id,
            "Organization": f"{self.membership.organization.name} ({task.organization_id})",
            "Status": f"{task.status} {task.error_code}".strip(),
            "Created": clock.iso(task.created_at),
        }
        lines = [
            "What happened, and what did you expect?",
            "",
            "",
            *(f"{name}: {fact}" for name, fact in facts.items()),
        ]
        text = {"subject": f"Problem with {task.public_id}", "body": "\r\n".join(lines)}
        return f"mailto:{settings.SUPPORT_EMAIL}?{urlencode(text, quote_via=quote)}"


class DeleteTaskView(LiveView):
    """The step between the wish to delete a task's media and prompt and their end."""

    permission: ClassVar[roles.Permission] = roles.Permission.DELETE_MEDIA
    section: ClassVar[str] = "tasks"

    def get(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Ask for the id, and tell what goes and what stays."""
        return self._page(self.find_task(public_id))

    def post(self, request: HttpRequest, public_id: str) -> HttpResponse:
        """Delete them where the id was typed."""
        task = self.find_task(public_id)
        if request.POST.get("confirmation", "").strip() != task.public_id:
            return self._page(task, error="This is not the id of the task. Nothing was deleted.")
        try:
            deletion.delete(public_id=public_id, organization_id=task.organization_id, actor=self.user)
        except deletion.StillOpen:
            return self._page(task, error="The task has not ended yet. Delete it once it has.")
        messages.success(
            request, "The video, the prompt and the references are deleted. What was charged stays in the books."
        )
        return self.to("console-task", public_id)

    def _page(self, task: Generation, *, error: str = "") -> HttpResponse:
        return self.page("console/task_delete.html", task=task, error=error)


class Media(NamedTuple):
    """The files of a task as a page shows them; all addresses are empty where there is nothing to show."""

    video: str = ""
    poster: str = ""
    last_frame: str = ""
    seconds: float = 0.0
    size: int = 0
    width: int | None = None
    height: int | None = None
    kept_until: dt.datetime | None = None
    deleted_at: dt.datetime | None = None

    @classmethod
    def of(cls, task: Generation, files: Sequence[OutputAsset], *, days: int | None) -> "Media":
        """Look through the files of a task; `days` is how long the organization keeps them."""
        if task.status != Generation.Status.COMPLETED:
            return cls()
        by_kind = {asset.kind: asset for asset in files}
        video = by_kind.get(OutputAsset.Kind.VIDEO)
        if video is None:
            return cls()
        if video.deletion_asked_at:
            return cls(deleted_at=video.deletion_asked_at)
        urls = payloads.task(task, files)["output"]
        return cls(
            video=urls["video_url"],
            poster=urls.get("thumbnail_url", ""),
            last_frame=urls.get("last_frame_url", ""),
            seconds=(video.duration_ms or 0) / 1000,
            size=video.size_bytes,
            width=video.width,
            height=video.height,
            kept_until=task.created_at + dt.timedelta(days=days) if days is not None else None,
        )


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def _delivery_address(delivery: Delivery) -> str:
    """Return where a delivery is looked at and sent again."""
    return reverse("console-webhook", args=[delivery.delivery_id])
