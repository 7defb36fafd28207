"""What becomes of a task when a provider refuses, dies, loses answers or lies: over real sockets, charged once."""

import datetime as dt
import errno

import pytest
import time_machine
from av.error import FFmpegError

from billing import ledger
from generations import media, reconciliation, runner
from generations.tests import pipeline
from generations.tests.emulated import connect, prepare_machine, provider, run_until_ended
from generations.tests.factories import create_generation, funded_organization
from providers import channels, emulators, jobs, media_probe, sandbox_render, submissions
from providers.models import Channel, ChannelHealth, Route, UpstreamJob
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

Status = UpstreamJob.Status


@pytest.fixture(autouse=True)
def machine(settings, tmp_path, monkeypatch) -> None:
    """Loopback may be called, media stays in a folder of the test, and retries and polls are quick."""
    prepare_machine(settings, tmp_path)
    monkeypatch.setattr(runner, "RETRY_PAUSE", runner.RETRY_PAUSE / 100)
    monkeypatch.setattr(runner, "OUTPUT_PATIENCE", runner.OUTPUT_PATIENCE / 1000)
    monkeypatch.setattr(jobs, "SOONEST_POLL", jobs.SOONEST_POLL / 10)


@pytest.fixture
def customer(db):
    return funded_organization(100)


@pytest.fixture
def stranger(db):
    return funded_organization(100)


def ends(generation):
    """Return how the jobs of a generation ended, in order: channel's adapter, status and class."""
    jobs = UpstreamJob.objects.filter(reference=generation.pk).order_by("number").select_related("channel")
    return [(job.channel and job.channel.adapter, job.status, job.error_class) for job in jobs]


def assert_charged(customer, stranger, generation, *, amount):
    assert ledger.balance(organization_id=customer.pk) == (100 - amount, 0)
    assert ledger.balance(organization_id=stranger.pk) == (100, 0)
    assert generation.status == ("completed" if amount else "failed")
    assert reconciliation.discrepancies() == []


@pytest.mark.parametrize(
    ("refusal", "error_class"),
    [
        ("error:QuotaExceeded", "capacity"),
        ("error:ServerOverloaded", "capacity"),
        ("error:AccountOverdueError", "our_account"),
        ("error:AuthenticationError", "our_account"),
        ("error:MissingParameter", "our_bug"),
    ],
)
def test_a_refusal_that_is_not_the_customers_goes_to_the_next_route(customer, stranger, refusal, error_class):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["submit"] = refusal
        generation = create_generation(customer)
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.FAILED, error_class), ("kie", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (0, 1)
    assert_charged(customer, stranger, generation, amount=20)


@pytest.mark.parametrize("fault", ["fail=InputTextSensitiveContentDetected", "submit=error:InputTextRiskDetection"])
def test_moderation_never_shops_around(customer, stranger, fault):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        name, _, value = fault.partition("=")
        first.knobs[name] = value
        generation = create_generation(customer)
        run_until_ended(generation)

    assert [end[2] for end in ends(generation)] == ["customer_moderation"]
    assert (generation.error_code, len(second.submissions)) == ("content_policy_violation", 0)
    assert_charged(customer, stranger, generation, amount=0)


def test_a_job_that_dies_after_it_was_taken_moves_on_and_is_charged_once(customer, stranger):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["fail"] = "InternalServiceError"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.FAILED, "transient"), ("kie", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (1, 1)
    assert_charged(customer, stranger, generation, amount=20)


@pytest.mark.parametrize("result", ["not-video", "short", "gone", "no-url"])
def test_a_success_without_the_video_that_was_asked_for_is_a_failure_of_the_provider(customer, stranger, result):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["result"] = result
        generation = create_generation(customer)
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.FAILED, "transient"), ("kie", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (1, 1)
    assert_charged(customer, stranger, generation, amount=20)


def test_one_provider_alone_is_tried_again_a_few_times_and_then_the_task_fails(customer, stranger):
    with provider("ark") as (only, _):
        only.knobs["fail"] = "InternalServiceError"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert [end[2] for end in ends(generation)] == ["transient"] * runner.MAX_FAILURES
    assert len(only.submissions) == runner.MAX_FAILURES
    assert_charged(customer, stranger, generation, amount=0)


def test_words_that_nobody_knows_are_tried_elsewhere_once(customer, stranger):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["fail"], second.knobs["fail"] = "BrandNewThing", "A brand new thing went wrong"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert [end[2] for end in ends(generation)] == ["unknown", "unknown"]
    assert generation.error_message.startswith("The video could not be generated.")
    assert_charged(customer, stranger, generation, amount=0)


def test_a_lost_answer_is_found_in_the_list_and_never_sent_again(customer, stranger, monkeypatch):
    monkeypatch.setattr(submissions, "GRACE", submissions.GRACE / 600)
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["submit"] = "drop"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (1, 0)
    assert_charged(customer, stranger, generation, amount=20)


def test_a_request_that_never_arrived_is_sent_elsewhere_once_the_list_shows_it_never_did(
    customer, stranger, monkeypatch
):
    monkeypatch.setattr(submissions, "GRACE", submissions.GRACE / 600)
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["submit"] = "drop-before"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.FAILED, "transient"), ("kie", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (0, 1)
    assert_charged(customer, stranger, generation, amount=20)


@pytest.mark.parametrize(("policy", "submissions_made"), [("fail", 1), ("retry", 2)])
def test_where_only_a_callback_could_tell_the_channels_policy_decides(
    customer, stranger, monkeypatch, policy, submissions_made
):
    monkeypatch.setattr(submissions, "GRACE", submissions.GRACE / 600)
    with provider("kie", priority=1) as (first, channel), provider("ark", priority=2) as (second, _):
        Channel.objects.filter(pk=channel.pk).update(unknown_policy=policy, unknown_grace_seconds=1)
        first.knobs |= {"submit": "drop", "callback": "none"}
        generation = create_generation(customer)
        run_until_ended(generation)

    assert len(first.submissions) + len(second.submissions) == submissions_made
    assert ends(generation)[0] == ("kie", Status.FAILED, "transient")
    assert_charged(customer, stranger, generation, amount=20 if policy == "retry" else 0)


def test_five_failures_open_the_breaker_and_a_probe_closes_it(customer, stranger, monkeypatch):
    emulator = emulators.find("ark")()
    with emulator.serving() as base_url:
        channel = connect(emulator, base_url, priority=1)
    with provider("kie", priority=2) as (second, _):
        # Nothing listens at the first provider's address any more.
        generations = [create_generation(customer, duration=4) for _ in range(5)]
        run_until_ended(*generations)
        row = ChannelHealth.objects.get(channel=channel)
        assert (row.failure_count, row.trip_count, row.open_until > clock.now()) == (5, 1, True)
        assert len(second.submissions) == 5

        with emulator.serving() as base_url:
            Channel.objects.filter(pk=channel.pk).update(base_url=base_url)
            Channel.objects.filter(pk=channel.pk).update(output_hosts=["127.0.0.1"])
            more = create_generation(stranger)
            run_until_ended(more)
            assert ends(more) == [("kie", Status.SUCCEEDED, "")]

            ChannelHealth.objects.update(open_until=clock.now())
            channel.credentials.get()
            probe, other = create_generation(stranger), create_generation(stranger)
            for _ in range(2):
                pipeline.run("submit")
            sent = UpstreamJob.objects.filter(reference__in=[probe.pk, other.pk])
            assert sorted(job.channel.adapter for job in sent.select_related("channel")) in (
                ["ark", "ark"],
                ["ark", "kie"],
            )
            row.refresh_from_db()
            assert (row.failure_count, row.trip_count, row.open_until) == (0, 0, None)
            run_until_ended(probe, other)


def test_a_provider_without_capacity_is_paused_and_the_task_waits_for_it(customer, stranger, monkeypatch):
    with provider("ark") as (only, channel):
        only.knobs["submit"] = "error:ServerOverloaded"
        generation = create_generation(customer)
        pipeline.run("submit")
        pipeline.run("settle")
        assert pipeline.run("submit") == 0
        assert ChannelHealth.objects.get(channel=channel).paused_until > clock.now()
        generation.refresh_from_db()
        assert generation.status == "pending"

        only.knobs.clear()
        ChannelHealth.objects.update(paused_until=clock.now())
        run_until_ended(generation)

    assert [end[2] for end in ends(generation)] == ["capacity", ""]
    assert len(only.submissions) == 1
    assert_charged(customer, stranger, generation, amount=20)


def test_a_full_channel_takes_turns_between_owners(customer, stranger):
    with provider("ark") as (only, channel):
        Channel.objects.filter(pk=channel.pk).update(max_open=2)
        only.knobs["status"] = "stuck"
        greedy = [create_generation(customer) for _ in range(5)]
        late = create_generation(stranger)
        for _ in range(5):
            pipeline.run("submit")

        sent = set(UpstreamJob.objects.filter(status__in=UpstreamJob.SENT).values_list("reference", flat=True))
        assert sent == {greedy[0].pk, late.pk}
        assert len(only.submissions) == 2

        Channel.objects.filter(pk=channel.pk).update(max_open=3)
        UpstreamJob.objects.filter(status=Status.QUEUED).update(due_at=clock.now())
        pipeline.run("submit")
        assert len(only.submissions) == 3


def test_submissions_keep_the_channels_rate(customer):
    with provider("ark") as (only, channel):
        Channel.objects.filter(pk=channel.pk).update(max_submits_per_minute=60)
        now = clock.now()
        with time_machine.travel(now, tick=False):  # however long ten rounds take
            for _ in range(5):
                create_generation(customer)
            for _ in range(10):
                pipeline.run("submit")
            # One a second, of which one may be ahead of its time.
            assert len(only.submissions) == 2

        with time_machine.travel(now + dt.timedelta(seconds=1), tick=False):
            UpstreamJob.objects.filter(status=Status.QUEUED).update(due_at=clock.now())
            pipeline.run("submit")
            assert len(only.submissions) == 3


def test_a_request_goes_where_it_can_be_served(customer, stranger):
    images = tuple(f"https://cdn.example.com/{n}.bmp" for n in range(2))
    with provider("fal", priority=1) as (first, _), provider("ark", priority=2) as (second, _):
        generation = create_generation(customer, image_urls=images, prompt="@Image1 meets @Image2")
        run_until_ended(generation)

    assert ends(generation) == [("ark", Status.SUCCEEDED, "")]
    assert (len(first.submissions), len(second.submissions)) == (0, 1)


def test_weights_share_the_load(customer):
    with provider("ark") as (heavy, channel), provider("kie") as (light, _):
        heavy.knobs["status"] = light.knobs["status"] = "stuck"
        Route.objects.filter(channel=channel).update(weight=9)
        rich = funded_organization(10_000)
        for _ in range(60):
            create_generation(rich)
        for _ in range(12):
            pipeline.run("submit")

    assert len(heavy.submissions) + len(light.submissions) == 60
    # The chance of fewer than 40 of 60 at nine in ten is below one in a million.
    assert len(heavy.submissions) >= 40
    assert light.submissions or len(heavy.submissions) == 60


@pytest.mark.parametrize("state", [Channel.State.DRAINING, Channel.State.OFF])
def test_a_drained_channel_takes_nothing_new_and_finishes_what_it_has(customer, stranger, state):
    with provider("ark", priority=1) as (_, channel), provider("kie", priority=2):
        begun = create_generation(customer)
        pipeline.run("submit")
        Channel.objects.filter(pk=channel.pk).update(state=state)
        new = create_generation(customer)
        run_until_ended(begun, new)

    assert (ends(begun)[0][0], ends(new)[0][0]) == ("ark", "kie")
    assert (begun.status, new.status) == ("completed", "completed")


def test_a_job_keeps_the_credential_that_it_was_sent_with(customer, stranger):
    with provider("ark") as (_, channel):
        begun = create_generation(customer)
        pipeline.run("submit")
        channels.set_credential(channel=channel, credential="a new one that this account does not know")
        run_until_ended(begun)
        assert begun.status == "completed"

        refused = create_generation(stranger)
        pipeline.run("submit")
        assert ends(refused) == [("ark", Status.FAILED, "our_account")]


def test_a_provider_that_only_answers_with_its_gateways_error_is_avoided_after_five(customer, stranger):
    rich = funded_organization(1_000)
    with provider("kie", priority=1) as (first, channel), provider("ark", priority=2) as (second, _):
        first.knobs |= {"submit": "html", "callback": "none"}
        lost = [create_generation(rich) for _ in range(5)]
        pipeline.run("submit")
        assert ChannelHealth.objects.get(channel=channel).open_until > clock.now()

        saved = create_generation(customer)
        run_until_ended(saved)

    assert (ends(saved), len(second.submissions)) == ([("ark", Status.SUCCEEDED, "")], 1)
    assert UpstreamJob.objects.filter(reference__in=[one.pk for one in lost], status=Status.SUBMITTING).count() == 5


def test_a_success_of_an_older_job_does_not_close_a_breaker_that_opened_since(customer, stranger):
    with provider("ark") as (only, channel):
        older = create_generation(customer)
        pipeline.run("submit")
        only.knobs["submit"] = "error:AccountOverdueError"
        create_generation(stranger)
        pipeline.run("submit")
        row = ChannelHealth.objects.get(channel=channel)
        assert row.open_until > clock.now()
        run_until_ended(older)

        assert older.status == "completed"
        row.refresh_from_db()
        assert row.open_until > clock.now()


def test_a_smaller_video_than_was_paid_for_is_no_success(customer, stranger, monkeypatch):
    real = media.media_copy.write_clean

    def shrink(source, destination, *, has_to_mark):
        scene = sandbox_render.Scene("", "", 4, (320, 180), has_audio=False, has_watermark=False)
        sandbox_render.write_video(scene, source)
        real(source, destination, has_to_mark=has_to_mark)

    monkeypatch.setattr(media.media_copy, "write_clean", shrink)
    with provider("ark") as (_, _):
        generation = create_generation(customer)
        run_until_ended(generation)

    assert [end[2] for end in ends(generation)] == ["transient"] * runner.MAX_FAILURES
    assert_charged(customer, stranger, generation, amount=0)


def test_a_full_disk_of_ours_is_nobodys_fault_and_only_delays(customer, stranger, monkeypatch):
    monkeypatch.setattr(runner, "STORAGE_PAUSE_SECONDS", 0.1)
    real, failures = media.media_copy.write_clean, iter(range(2))

    def full(source, destination, *, has_to_mark):
        if next(failures, None) is not None:
            with media_probe.opened(source):
                raise FFmpegError(errno.ENOSPC, "No space left on device")
        real(source, destination, has_to_mark=has_to_mark)

    monkeypatch.setattr(media.media_copy, "write_clean", full)
    with provider("ark") as (only, _):
        generation = create_generation(customer)
        run_until_ended(generation)

    assert len(only.submissions) == 1
    assert not ChannelHealth.objects.filter(failure_count__gt=0).exists()
    assert_charged(customer, stranger, generation, amount=20)


def test_the_id_of_a_taken_job_is_kept_although_the_lease_was_lost(customer, monkeypatch):
    def late(*_):
        raise jobs.LeaseLost("somebody else has it")

    with provider("kie") as (only, _):
        create_generation(customer)
        monkeypatch.setattr(jobs, "accepted", late)
        with pytest.raises(jobs.LeaseLost):
            pipeline.run("submit")

    assert UpstreamJob.objects.get().hinted_id == only.submissions[0].task_id


def test_new_words_for_a_refused_content_shop_nowhere(customer, stranger):
    with provider("ark", priority=1) as (first, _), provider("kie", priority=2) as (second, _):
        first.knobs["fail"] = "InputVideoRiskDetectionOfTomorrow"
        generation = create_generation(customer)
        run_until_ended(generation)

    assert (ends(generation)[0][2], len(second.submissions)) == ("customer_moderation", 0)
    assert_charged(customer, stranger, generation, amount=0)
