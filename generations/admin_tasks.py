"""The staff's pages of tasks: a list that stays quick, a page with all that is known, and what may be done by hand."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from unfold.decorators import action

from accounts.models import User
from accounts.staff import ReadOnlyAdmin
from generations import dossier, interventions
from generations.admin_task_forms import (
    AgeFilter,
    ModelFilter,
    MoveForm,
    ReasonForm,
    RefundForm,
    RefundReasonForm,
    TaskMadeFilter,
)
from generations.models import Generation
from providers.interventions import destinations
from providers.models import UpstreamJob

MOST_AT_ONCE = 200  # tasks of one mass refund, each of which the page before it names


@admin.register(Generation)
class GenerationAdmin(ReadOnlyAdmin):
    """Customers' tasks, newest first."""

    list_display = [
        "public_id",
        "organization",
        "model",
        "status",
        "is_test",
        "credits",
        "credits_refunded",
        "error_code",
        "created_at",
        "finished_at",
    ]
    list_filter = ["status", AgeFilter, TaskMadeFilter, ModelFilter, "is_test", "error_code"]
    list_select_related = ["organization"]
    search_fields = ["public_id__exact"]
    search_help_text = "The whole id of a task. The search box at the left finds tasks by what belongs to them, too."
    ordering = ["-public_id"]  # ids made later sort later, and the primary key is the one index over all organizations
    fields = [
        ("organization", "api_key"),
        ("model", "is_test"),
        ("status", "error_code"),
        ("credits", "credits_refunded"),
        ("created_at", "deadline_at"),
    ]
    change_form_outer_after_template = "admin/generations/task.html"
    actions = ["refund_selected"]
    actions_detail = ["poll_now", "fail", "refund", "move", "redeliver", "erase"]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Generation | None:
        """Read a task once for a page: each action that is offered asks for it, too."""
        known: Generation | None = getattr(request, "_task", None)
        if known is None or known.pk != object_id:
            known = Generation.objects.select_related("organization", "api_key").filter(pk=object_id).first()
            request._task = known  # type: ignore[attr-defined] # for this request only
        return known

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the task with everything that other apps keep about it."""
        generation = self.get_object(request, object_id) if object_id and self.has_view_permission(request) else None
        if generation is not None:
            extra_context = {**(extra_context or {}), "dossier": dossier.compile(generation, may=request.user.has_perm)}
        response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        return response

    def has_poll_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to ask for an open task."""
        return self._may(request, "generations.operate_generation", object_id, lambda task: task.is_open)

    def has_fail_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer the end of an open task."""
        return self._may(request, "generations.operate_generation", object_id, lambda task: task.is_open)

    def has_move_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to choose the channel of an open task; whether it was sent, its page and the domain look."""
        return self._may(request, "generations.operate_generation", object_id, lambda task: task.is_open)

    def has_refund_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer a refund while something is left of a charge."""
        return self._may(request, "generations.refund_generation", object_id, _is_refundable)

    def has_redeliver_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to send the webhook of a task that has ended once more."""
        return self._may(
            request, "webhooks.redeliver_delivery", object_id, lambda task: bool(task.callback_url) and not task.is_open
        )

    def has_erase_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Offer to delete the content of a task that has ended."""
        return self._may(request, "generations.erase_generation", object_id, lambda task: not task.is_open)

    @action(description="Poll now", url_path="poll-now", permissions=["poll"], icon="sync")
    def poll_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask the provider at once."""
        form = ReasonForm(request.POST or None)
        text = "Its waiting jobs become due now. Nothing is sent twice: whoever holds a job goes on with it."
        return self._act(
            request,
            object_id,
            "Poll now",
            form,
            text,
            lambda data: interventions.poll_now(public_id=object_id, actor=_staff(request), reason=data["reason"]),
        )

    @action(description="Fail and release", url_path="fail", permissions=["fail"], icon="cancel")
    def fail(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End the task and give the held credits back."""
        task = self._find(request, object_id)
        text = (
            f"The task ends as canceled, {task.credits} credits go back to {task.organization}, its webhook is sent. "
            "This cannot be undone: what a provider still makes of it is our cost and never charged."
        )
        return self._act(
            request,
            object_id,
            "Fail and release",
            ReasonForm(request.POST or None),
            text,
            lambda data: interventions.fail(public_id=object_id, actor=_staff(request), reason=data["reason"]),
        )

    @action(description="Refund", url_path="refund", permissions=["refund"], icon="undo")
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give charged credits back, in whole or in part."""
        task = self._find(request, object_id)
        left = task.credits - task.credits_refunded
        form = RefundForm(request.POST or None, initial={"amount": left, "refunded_before": task.credits_refunded})
        text = f"{task.credits} credits were charged and {task.credits_refunded} given back; {left} are left."
        return self._act(
            request,
            object_id,
            "Refund",
            form,
            text,
            lambda data: interventions.refund(
                public_id=object_id,
                amount=data["amount"],
                refunded_before=data["refunded_before"],
                actor=_staff(request),
                reason=data["reason"],
            ),
        )

    @action(description="Move", url_path="move", permissions=["move"], icon="alt_route")
    def move(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Choose the channel of a task that was not sent yet."""
        job = UpstreamJob.objects.filter(reference=object_id).select_related("channel").order_by("-number").first()
        channels = destinations(job) if job else []
        if not channels:
            state = job.status if job else "missing"
            reason = (
                f"Its job is {state}. Only one that waits in the queue, and that some active route can take, is moved: "
                "a submission that was made, or of which nobody knows, is never made again by hand."
            )
            self.message_user(request, reason, messages.ERROR)
            return self._back(object_id)
        form = MoveForm(request.POST or None, channels=channels)
        now = job.channel if job and job.channel else "any, as the routes say"
        text = f"Its next submission goes to the chosen channel and no other. Now: {now}."
        return self._act(
            request,
            object_id,
            "Move",
            form,
            text,
            lambda data: interventions.move(
                public_id=object_id,
                channel=next((one for one in channels if str(one.pk) == data["channel"]), None),
                actor=_staff(request),
                reason=data["reason"],
            ),
        )

    @action(description="Send webhook again", url_path="redeliver", permissions=["redeliver"], icon="redo")
    def redeliver(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Have the customer told once more."""
        task = self._find(request, object_id)
        return self._act(
            request,
            object_id,
            "Send webhook again",
            ReasonForm(request.POST or None),
            f"The same body goes out under the same id to {task.callback_url}; what had ended begins anew.",
            lambda data: interventions.redeliver(public_id=object_id, actor=_staff(request), reason=data["reason"]),
        )

    @action(description="Delete content", url_path="erase", permissions=["erase"], icon="delete_forever")
    def erase(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Delete the files, the prompt and the references for good."""
        return self._act(
            request,
            object_id,
            "Delete content",
            ReasonForm(request.POST or None),
            "Its video, pictures, prompt and references are deleted for good, and their addresses answer 410 at once. "
            "The task, its price and its ledger stay. This cannot be undone. It is also how a task is deactivated: "
            "there is no other way to take one from its customer.",
            lambda data: interventions.erase(public_id=object_id, actor=_staff(request), reason=data["reason"]),
        )

    @admin.action(description="Refund the selected in full", permissions=["refund"])
    def refund_selected(self, request: HttpRequest, queryset: QuerySet[Generation]) -> HttpResponse | None:
        """Show what would be given back, then give it back task by task."""
        chosen = list(queryset.select_related("organization")[: MOST_AT_ONCE + 1])
        if len(chosen) > MOST_AT_ONCE:
            self.message_user(request, f"Choose at most {MOST_AT_ONCE} tasks at once.", messages.ERROR)
            return None
        refundable = [task for task in chosen if _is_refundable(task)]
        if not refundable:
            self.message_user(request, "None of these tasks has a charge left to give back.", messages.ERROR)
            return None
        is_sent = "confirmed" in request.POST
        form = RefundReasonForm(request.POST if is_sent else None)
        total = sum(task.credits - task.credits_refunded for task in refundable)
        if is_sent and form.is_valid():
            self._refund_seen(request, refundable, form.cleaned_data["reason"])
            return None
        who = len({task.organization_id for task in refundable})
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "title": f"Refund {len(refundable)} of {len(chosen)} selected tasks in full?",
            "text": f"{total:,} credits go back to {who} {'organization' if who == 1 else 'organizations'}. "
            "Tasks without a charge are left alone.",
            "verb": "Refund",
            "form": form,
            "items": [f"{task}: {task.credits - task.credits_refunded} to {task.organization}" for task in refundable],
            "hidden": [
                ("action", "refund_selected"),
                ("confirmed", "yes"),
                *((helpers.ACTION_CHECKBOX_NAME, task.pk) for task in refundable),
                *((f"seen_{task.pk}", task.credits_refunded) for task in refundable),
            ],
            "back": reverse("admin:generations_generation_changelist"),
        }
        return render(request, "admin/staff/act.html", context)

    def _refund_seen(self, request: HttpRequest, tasks: list[Generation], reason: str) -> None:
        """Give back of each task what was left when its page was made: a second click finds it changed."""
        count = total = 0
        for task in tasks:
            seen = request.POST.get(f"seen_{task.pk}", "")
            if not seen.isdecimal():
                continue
            amount = task.credits - int(seen)
            try:
                interventions.refund(
                    public_id=task.pk,
                    amount=amount,
                    refunded_before=int(seen),
                    actor=_staff(request),
                    reason=reason,
                )
            except interventions.AboveLimit as error:
                self.message_user(request, f"{task} and those after it were left alone. {error}", messages.ERROR)
                break
            except interventions.NotPossible as error:
                self.message_user(request, f"{task}: {error}", messages.ERROR)
            else:
                count, total = count + 1, total + amount
        if count:
            self.message_user(request, f"Refunded {total:,} credits of {count} tasks.", messages.SUCCESS)

    def _act(
        self,
        request: HttpRequest,
        object_id: str,
        verb: str,
        form: forms.Form,
        text: str,
        change: Callable[[Any], Any],
    ) -> HttpResponse:
        """Ask for what the form wants to know, then change the task, or tell why not."""
        task = self._find(request, object_id)
        if request.method == "POST" and form.is_valid():
            try:
                change(form.cleaned_data)
            except interventions.NotPossible as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{verb}: done.", messages.SUCCESS)
            return self._back(object_id)
        context = self.admin_site.each_context(request) | {
            "opts": self.opts,
            "title": f"{verb}: {task}",
            "original": task,
            "text": text,
            "verb": verb,
            "form": form,
            "back": reverse("admin:generations_generation_change", args=[task.pk]),
        }
        return render(request, "admin/staff/act.html", context)

    def _back(self, object_id: str) -> HttpResponse:
        return redirect("admin:generations_generation_change", object_id)

    def _find(self, request: HttpRequest, object_id: str) -> Generation:
        task = self.get_object(request, object_id)
        if task is None:
            raise Http404
        return task

    def _may(
        self, request: HttpRequest, permission: str, object_id: str | None, is_possible: Callable[[Generation], bool]
    ) -> bool:
        # To do something to a task one has to see it, whatever else was granted.
        if not request.user.has_perms((permission, "generations.view_generation")):
            return False
        # What is not possible is not offered; who asks for it nevertheless is told why, not that they may not.
        is_offer = (
            request.resolver_match is not None and request.resolver_match.url_name == "generations_generation_change"
        )
        task = self.get_object(request, object_id) if object_id and is_offer else None
        return task is None or is_possible(task)


def _is_refundable(task: Generation) -> bool:
    is_charged = task.status == Generation.Status.COMPLETED and not task.is_test
    return is_charged and task.credits_refunded < task.credits


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user
