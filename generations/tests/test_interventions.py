"""What staff do to a task by hand: with a reason, audited in the same transaction, and never a second submission."""

import datetime as dt
import uuid

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.urls import reverse

from accounts.models import AuditEntry, User
from accounts.tests.factories import MembershipFactory, UserFactory
from billing import adjustments, ledger
from generations import interventions
from generations.models import Generation
from generations.tests import pipeline
from generations.tests.factories import create_generation, funded_organization
from providers import routing
from providers.models import Channel, Route, SandboxRun, UpstreamJob
from seedancee2.lib import clock
from tests.web import complete
from webhooks.models import Delivery

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff(client) -> User:
    """One of operations who may refund, too, signed in."""
    user: User = UserFactory.create(is_staff=True)
    names = [
        "view_generation",
        "operate_generation",
        "refund_generation",
        "erase_generation",
        "redeliver_delivery",
        "view_delivery",
    ]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    return user


@pytest.fixture
def stranger() -> Generation:
    """Another organization's open task."""
    return create_generation(funded_organization())


def send(client, task, action, **values):
    url = reverse(f"admin:generations_generation_{action}", args=[task.pk])
    return client.post(url, {"reason": "the customer asked", **values}, follow=True).content.decode()


def audited() -> list[tuple[str, str, int | None, str]]:
    entries = AuditEntry.objects.order_by("id")
    return [(entry.action, entry.target, entry.organization_id, entry.reason) for entry in entries]


@pytest.mark.parametrize("action", ["poll_now", "fail", "move", "redeliver", "erase"])
def test_nothing_is_done_without_a_reason(client, staff, action):
    task = create_generation(funded_organization())
    pipeline.route_live_traffic_to_sandbox()
    before = list(UpstreamJob.objects.values())

    for reason in ("", "   ", "x" * 501):
        page = send(client, task, action, reason=reason, channel="any")
        assert "This field is required" in page or "at most 500 characters" in page

    task.refresh_from_db()
    assert (task.status, audited()) == ("pending", [])
    assert list(UpstreamJob.objects.values()) == before


def test_a_stuck_task_is_failed_and_its_hold_released_once(client, staff, stranger):
    organization = funded_organization(100)
    task = create_generation(organization, callback_url="https://customer.example/")

    assert "Fail and release: done." in send(client, task, "fail")
    assert "This task is failed already." in send(client, task, "fail")

    task.refresh_from_db()
    stranger.refresh_from_db()
    assert (task.status, task.error_code, task.credits_refunded) == ("failed", "canceled", task.credits)
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert Delivery.objects.filter(reference=task.pk, event="video.generation.failed").count() == 1
    assert audited() == [("task.failed", task.pk, organization.pk, "the customer asked")]
    assert AuditEntry.objects.get().actor_id == staff.pk
    assert (stranger.status, ledger.balance(organization_id=stranger.organization_id)) == ("pending", (980, 20))


def test_a_task_failed_while_queued_is_sent_to_nobody(client, staff):
    pipeline.route_live_traffic_to_sandbox()
    task = create_generation(funded_organization())
    send(client, task, "fail")

    assert pipeline.run("submit") == 1

    assert SandboxRun.objects.count() == 0
    assert UpstreamJob.objects.get().status == "failed"


def test_a_completed_task_is_not_failed(client, staff):
    organization = funded_organization(100)
    task = complete(create_generation(organization))

    assert "This task is completed already." in send(client, task, "fail")
    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert audited() == []


def test_a_refund_in_parts_ends_at_what_was_charged(client, staff, stranger):
    organization = funded_organization(100)
    task = complete(create_generation(organization))
    assert task.credits == 20

    assert "Refund: done." in send(client, task, "refund", amount="5", refunded_before="0")
    assert "refunded meanwhile: 5 credits in all" in send(client, task, "refund", amount="5", refunded_before="0")
    assert "cannot be refunded" in send(client, task, "refund", amount="16", refunded_before="5")
    assert "Refund: done." in send(client, task, "refund", amount="15", refunded_before="5")

    task.refresh_from_db()
    assert task.credits_refunded == 20
    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert [entry[0] for entry in audited()] == ["task.refunded", "task.refunded"]
    assert ledger.balance(organization_id=stranger.organization_id) == (980, 20)


def test_refunds_and_adjustments_of_a_person_share_one_limit_of_a_day(client, staff, settings):
    settings.ADJUSTMENT_LIMIT = 45
    organization = funded_organization(100)
    tasks = [complete(create_generation(organization)) for _ in range(3)]
    adjustments.request(organization_id=organization.pk, amount=-5, reason="typo", requested_by=f"user:{staff.pk}")
    chosen = {"action": "refund_selected", "_selected_action": [task.pk for task in tasks], "confirmed": "yes"}
    seen = {f"seen_{task.pk}": "0" for task in tasks}

    page = client.post(
        "/admin/generations/generation/", chosen | seen | {"reason": "they flicker"}, follow=True
    ).content.decode()

    assert "Refunded 40 credits of 2 tasks." in page
    assert f"{tasks[0].pk} and those after it were left alone." in page  # the list is newest first
    assert "0 are left to you. Let somebody else of finance refund it" in page
    assert "one person may move within a day" in send(client, tasks[0], "refund", amount="1", refunded_before="0")
    assert ledger.balance(organization_id=organization.pk) == (100 - 60 - 5 + 40, 0)
    assert [entry[0] for entry in audited()].count("task.refunded") == 2
    # An adjustment above what is left waits; another person has a day of their own, and so have we tomorrow.
    assert adjustments.needs_second_person(amount=1, requested_by=f"user:{staff.pk}")
    assert not adjustments.needs_second_person(amount=45, requested_by="user:0")
    with time_machine.travel(clock.now() + dt.timedelta(days=1, minutes=1)):
        interventions.refund(public_id=tasks[0].pk, amount=20, refunded_before=0, actor=staff, reason="it flickers")
    assert ledger.balance(organization_id=organization.pk) == (95, 0)


def test_nobody_refunds_a_task_of_their_own_organization(client, staff):
    organization = funded_organization(100)
    task = complete(create_generation(organization))
    MembershipFactory.create(user=staff, organization=organization, role="viewer")

    assert "You are a member of this organization" in send(client, task, "refund", amount="5", refunded_before="0")

    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert audited() == []


@pytest.mark.parametrize("amount", ["0", "-5", "1.5", "", "x"])
def test_a_refund_of_no_credits_is_refused(client, staff, amount):
    organization = funded_organization(100)
    task = complete(create_generation(organization))

    send(client, task, "refund", amount=amount, refunded_before="0")

    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert audited() == []


def test_credits_and_audit_entry_move_together_or_not_at_all(staff, monkeypatch):
    organization = funded_organization(100)
    task = complete(create_generation(organization))
    monkeypatch.setattr("accounts.audit.AuditEntry.objects.create", lambda **_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        interventions.refund(public_id=task.pk, amount=5, refunded_before=0, actor=staff, reason="x")

    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert Generation.objects.get(pk=task.pk).credits_refunded == 0


def test_poll_now_makes_waiting_jobs_due_and_leaves_those_in_work_alone(client, staff, stranger):
    task = create_generation(funded_organization())
    later = clock.now() + dt.timedelta(hours=1)
    UpstreamJob.objects.update(due_at=later)

    assert "Poll now: done." in send(client, task, "poll_now")
    job, other = UpstreamJob.objects.get(reference=task.pk), UpstreamJob.objects.get(reference=stranger.pk)
    assert job.due_at <= clock.now()
    assert other.due_at == later
    assert audited() == [("task.polled", task.pk, None, "the customer asked")]

    UpstreamJob.objects.filter(pk=job.pk).update(due_at=later, lease_token=uuid.uuid4())
    assert "Nothing of this task is waiting" in send(client, task, "poll_now")
    job.refresh_from_db()
    assert (job.due_at, len(audited())) == (later, 1)


def test_a_queued_task_goes_to_the_chosen_channel_and_no_other(client, staff):
    pipeline.route_live_traffic_to_sandbox()
    sandbox = Channel.objects.get(name="sandbox")
    other = Channel.objects.create(name="other", adapter="sandbox")
    Route.objects.create(model="mini", traffic="live", channel=other, upstream_model="sandbox-mini", priority=900)
    task, beside = create_generation(funded_organization()), create_generation(funded_organization())

    assert "Move: done." in send(client, task, "move", channel=str(other.pk))
    job = UpstreamJob.objects.get(reference=task.pk)
    assert [route.channel for route in routing.candidates(job)] == [other]
    assert audited() == [("task.moved", task.pk, None, "the customer asked")]

    assert pipeline.run("submit") == 2
    job.refresh_from_db()
    assert (job.status, job.channel) == ("submitted", other)
    assert UpstreamJob.objects.get(reference=beside.pk).channel == sandbox
    assert SandboxRun.objects.count() == 2


def test_a_moved_task_waits_where_its_channel_takes_nothing_and_can_be_given_back(client, staff):
    pipeline.route_live_traffic_to_sandbox()
    other = Channel.objects.create(name="other", adapter="sandbox")
    Route.objects.create(model="mini", traffic="live", channel=other, upstream_model="sandbox-mini")
    task = create_generation(funded_organization())
    send(client, task, "move", channel=str(other.pk))
    Channel.objects.filter(pk=other.pk).update(state="draining")

    pipeline.run("submit")
    assert SandboxRun.objects.count() == 0

    send(client, task, "move", channel="any")
    pipeline.run("submit")
    assert SandboxRun.objects.count() == 1
    assert UpstreamJob.objects.get(reference=task.pk).channel.name == "sandbox"


def test_what_was_or_may_have_been_sent_is_never_moved(client, staff):
    pipeline.route_live_traffic_to_sandbox()
    channel = Channel.objects.get(name="sandbox")
    states = {
        "submitting": {"channel": channel},
        "submitted": {"channel": channel, "upstream_id": "up_1"},
        "running": {"channel": channel, "upstream_id": "up_2"},
        "failed": {"finished_at": clock.now()},
        "leased": {"status": "queued", "lease_token": uuid.uuid4()},
    }
    for state, columns in states.items():
        task = create_generation(funded_organization())
        UpstreamJob.objects.filter(reference=task.pk).update(**{"status": state, **columns})
        before = UpstreamJob.objects.values().get(reference=task.pk)

        assert "is never made again by hand" in send(client, task, "move", channel=str(channel.pk))
        with pytest.raises(interventions.NotPossible):
            interventions.move(public_id=task.pk, channel=channel, actor=staff, reason="x")
        assert UpstreamJob.objects.values().get(reference=task.pk) == before
    assert UpstreamJob.objects.count() == len(states)
    assert audited() == []


def test_a_channel_that_cannot_take_the_task_is_no_choice(client, staff):
    pipeline.route_live_traffic_to_sandbox()
    idle = Channel.objects.create(name="idle", adapter="sandbox")
    task = create_generation(funded_organization())

    page = send(client, task, "move", channel=str(idle.pk))

    assert "is not one of the available choices" in page
    with pytest.raises(interventions.NotPossible, match="no active route"):
        interventions.move(public_id=task.pk, channel=idle, actor=staff, reason="x")
    assert UpstreamJob.objects.get().channel is None


def test_a_webhook_is_sent_again_from_the_tasks_page(client, staff, stranger):
    organization = funded_organization()
    task = complete(create_generation(organization, callback_url="https://customer.example/"))
    Delivery.objects.update(state="abandoned", due_at=None, finished_at=clock.now(), attempt_count=12)
    Generation.objects.filter(pk=stranger.pk).update(callback_url="https://stranger.example/")

    assert "No webhook was written" in send(client, stranger, "redeliver")
    assert audited() == []
    assert "Send webhook again: done." in send(client, task, "redeliver")

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.schedule_base) == ("pending", 12)
    assert audited() == [("webhook.redelivered", delivery.pk, organization.pk, "the customer asked")]

    Delivery.objects.update(leased_until=clock.now() + dt.timedelta(minutes=1))
    assert "A worker is sending it at this moment." in send(client, task, "redeliver")
    assert len(audited()) == 1
    Delivery.objects.update(leased_until=None, body=b"")
    assert "was deleted after 30 days" in send(client, task, "redeliver")
    assert len(audited()) == 1


def test_content_is_deleted_for_good_and_the_money_stays(client, staff, stranger):
    organization = funded_organization(100)
    task = complete(create_generation(organization, prompt="a face"))
    url = f"/media/{task.assets.get(kind='video').path}"

    assert "This task has not ended" in send(client, stranger, "erase")
    for _ in range(2):
        assert "Delete content: done." in send(client, task, "erase")

    task.refresh_from_db()
    stranger.refresh_from_db()
    assert (task.input["prompt"], task.status, task.credits_refunded) == ("", "completed", 0)
    assert (client.get(url).status_code, stranger.input["prompt"]) == (410, "waves")
    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    assert audited() == [("task.deleted", task.pk, organization.pk, "the customer asked")]


def chosen(client, tasks, **values):
    form = {"action": "refund_selected", "_selected_action": [task.pk for task in tasks]}
    return client.post("/admin/generations/generation/", form | values, follow=True).content.decode()


def test_many_tasks_are_refunded_after_a_page_that_names_each(client, staff, stranger):
    organization, other = funded_organization(100), funded_organization(100)
    whole, part = complete(create_generation(organization)), complete(create_generation(other))
    interventions.refund(public_id=part.pk, amount=5, refunded_before=0, actor=staff, reason="before")
    tasks = [whole, part, stranger]

    asked = chosen(client, tasks)
    assert "Refund 2 of 3 selected tasks in full?" in asked
    assert "35 credits go back to 2 organizations" in asked
    assert f"{part.pk}: 15 to {other}" in asked
    assert "This field is required" in chosen(client, tasks, confirmed="yes", reason="")
    assert ledger.balance(organization_id=organization.pk) == (80, 0)
    seen = {f"seen_{whole.pk}": "0", f"seen_{part.pk}": "5", f"seen_{stranger.pk}": "0"}

    told = chosen(client, tasks, confirmed="yes", reason="wave 7", **seen)
    assert "Refunded 35 credits of 2 tasks." in told
    again = chosen(client, tasks, confirmed="yes", reason="wave 7", **seen)
    assert "None of these tasks has a charge left" in again

    assert ledger.balance(organization_id=organization.pk) == (100, 0)
    assert ledger.balance(organization_id=other.pk) == (100, 0)
    assert ledger.balance(organization_id=stranger.organization_id) == (980, 20)
    assert [entry[0] for entry in audited()] == ["task.refunded"] * 3


def test_a_mass_refund_leaves_alone_what_changed_since_its_page(client, staff):
    organization = funded_organization(100)
    task = complete(create_generation(organization))
    interventions.refund(public_id=task.pk, amount=5, refunded_before=0, actor=staff, reason="meanwhile")

    told = chosen(client, [task], confirmed="yes", reason="wave 7", **{f"seen_{task.pk}": "0"})

    assert "refunded meanwhile: 5 credits in all" in told
    assert ledger.balance(organization_id=organization.pk) == (85, 0)


def test_the_page_of_a_finished_task_tells_all_of_it(client, django_assert_max_num_queries):
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    pipeline.route_live_traffic_to_sandbox()
    organization = funded_organization()
    with time_machine.travel(clock.now(), tick=False) as turned:
        task = create_generation(organization, callback_url="https://customer.example/hook")
        pipeline.run_to_end(turned, task)
        interventions_reason = "the picture froze"
        refunder = UserFactory.create(is_staff=True)
        interventions.refund(
            public_id=task.pk, amount=3, refunded_before=0, actor=refunder, reason=interventions_reason
        )
    assert task.status == "completed"
    job = UpstreamJob.objects.get()

    client.get("/admin/search/")  # once a minute a session is noted as seen
    with django_assert_max_num_queries(12):
        page = client.get(reverse("admin:generations_generation_change", args=[task.pk])).content.decode()

    for text in (
        job.upstream_id,
        f"/media/{task.assets.get(kind='video').path}",
        "Job 1: taken",
        "Ledger: reserve",
        "Ledger: capture",
        "Ledger: refund",
        "Task completed",
        f"{refunder.email}: task.refunded",
        interventions_reason,
        Delivery.objects.get().pk,
        "https://customer.example/hook",
        "&quot;credits_charged&quot;: 20",
    ):
        assert text in page, text


def test_an_amount_that_no_charge_has_is_refused_as_one(client, staff):
    task = complete(create_generation(funded_organization(100)))

    page = send(client, task, "refund", amount="9" * 30, refunded_before="0")

    assert "less than or equal to 1000000000000" in page
    assert audited() == []


def test_each_page_says_who_reads_the_reason(client, staff):
    organization = funded_organization(100)
    owner = MembershipFactory.create(organization=organization, role="owner").user
    task = complete(create_generation(organization, callback_url="https://customer.example/"))
    for action in ("redeliver", "erase", "fail", "poll_now"):
        page = client.get(reverse(f"admin:generations_generation_{action}", args=[task.pk])).content.decode()
        assert "The customer does not read it." in page, action
    page = client.get(reverse("admin:generations_generation_refund", args=[task.pk])).content.decode()
    assert "where the customer reads it: name no provider" in page
    send(client, task, "redeliver", reason="our secret reason")
    send(client, task, "refund", amount="5", refunded_before="0", reason="the picture froze")

    client.force_login(owner)
    log = client.get("/console/audit/", {"organization": organization.pk}).content.decode()
    books = client.get("/console/billing/", {"organization": organization.pk}).content.decode()
    assert "redelivered" in log
    assert ("our secret reason" in log, "the picture froze" in log, "the picture froze" in books) == (
        False,
        False,
        True,
    )
