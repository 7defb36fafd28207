"""The sandbox provider: its books, its directives, its files."""

import dataclasses
import datetime as dt
import hashlib
import json
import uuid
from pathlib import Path

import pytest
import time_machine

from providers import media_probe
from providers.adapters.base import (
    Accepted,
    Cancellation,
    ChannelAccess,
    DownloadError,
    ErrorClass,
    Failed,
    JobRequest,
    Lost,
    Pending,
    Progress,
    Ref,
    Refused,
    Running,
    Succeeded,
    Ticket,
    Unreadable,
)
from providers.adapters.sandbox import SandboxAdapter
from providers.models import SandboxRun

pytestmark = pytest.mark.django_db

# Long ago: a run submitted then is done by now.
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
REQUEST = JobRequest(
    model="mini",
    prompt="A secret lighthouse",
    duration=4,
    resolution="480p",
    aspect_ratio="16:9",
    generate_audio=True,
    watermark=False,
    return_last_frame=False,
)
ENOUGH = 100_000_000


@pytest.fixture
def sandbox() -> SandboxAdapter:
    return SandboxAdapter(ChannelAccess("sandbox", "", ""))


def submit(sandbox: SandboxAdapter, **changes: object) -> str:
    return submit_with_token(sandbox, uuid.uuid4().hex, **changes)


def submit_with_token(sandbox: SandboxAdapter, token: str, **changes: object) -> str:
    request = dataclasses.replace(REQUEST, **changes)  # type: ignore[arg-type]
    outcome = sandbox.submit(request, upstream_model="sandbox", ticket=Ticket(token, ""))
    assert isinstance(outcome, Accepted)
    return outcome.upstream_id


def lost(digest: bytes) -> Lost:
    return Lost(REQUEST, "sandbox", tag="", token_digest=digest, started_at=START)


def refused(sandbox: SandboxAdapter, **changes: object) -> Refused:
    request = dataclasses.replace(REQUEST, **changes)  # type: ignore[arg-type]
    outcome = sandbox.submit(request, upstream_model="sandbox", ticket=Ticket("token", ""))
    assert isinstance(outcome, Refused)
    assert not SandboxRun.objects.exists()
    return outcome


def outcome_after(sandbox: SandboxAdapter, seconds: float, **changes: object) -> Progress:
    with time_machine.travel(START, tick=False) as clock:
        upstream_id = submit(sandbox, **changes)
        clock.shift(seconds)
        return sandbox.fetch(Ref(upstream_id))


def long_ago(sandbox: SandboxAdapter, **changes: object) -> str:
    with time_machine.travel(START, tick=False):
        return submit(sandbox, **changes)


def finished(sandbox: SandboxAdapter, **changes: object) -> Succeeded:
    outcome = sandbox.fetch(Ref(long_ago(sandbox, **changes)))
    assert isinstance(outcome, Succeeded)
    return outcome


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, Pending), (0.499, Pending), (0.5, Running), (1.999, Running), (2, Succeeded), (1e6, Succeeded)],
)
def test_run_is_queued_then_runs_then_is_done(sandbox: SandboxAdapter, seconds: float, expected: type) -> None:
    assert type(outcome_after(sandbox, seconds)) is expected


@pytest.mark.parametrize(
    ("directive", "error_class"),
    [
        ("[sandbox:fail]", ErrorClass.OUR_BUG),
        ("[sandbox:moderation]", ErrorClass.CUSTOMER_MODERATION),
        ("[sandbox:bad-reference]", ErrorClass.CUSTOMER_INPUT),
    ],
)
def test_failures_come_on_demand(sandbox: SandboxAdapter, directive: str, error_class: ErrorClass) -> None:
    for prompt in (directive, f"A fox {directive.upper()} in snow", f"雪{directive}"):
        assert outcome_after(sandbox, 1.9, prompt=prompt) == Running()
        outcome = outcome_after(sandbox, 2, prompt=prompt)
        assert isinstance(outcome, Failed)
        assert outcome.error_class is error_class


@pytest.mark.parametrize(
    ("prompt", "end"),
    [
        ("[sandbox:delay=3]", 5.0),
        ("x [SANDBOX:Delay=0.25] y", 2.25),
        ("[sandbox:delay=99999999]", 3602.0),
        (f"[sandbox:delay={'9' * 4000}]", 3602.0),
        ("[sandbox:delay=]", 2.0),
        ("[sandbox:delay=-5]", 2.0),
        ("[sandbox:delay]", 2.0),
        ("[sandbox:delay=nan]", 2.0),
    ],
)
def test_delay_lengthens_the_run(sandbox: SandboxAdapter, prompt: str, end: float) -> None:
    assert outcome_after(sandbox, end - 0.001, prompt=prompt) == Running()
    assert isinstance(outcome_after(sandbox, end, prompt=prompt), Succeeded)


def test_delay_goes_before_a_failure(sandbox: SandboxAdapter) -> None:
    prompt = "[sandbox:fail][sandbox:delay=10]"
    assert outcome_after(sandbox, 11.9, prompt=prompt) == Running()
    assert isinstance(outcome_after(sandbox, 12, prompt=prompt), Failed)


def test_stuck_never_ends(sandbox: SandboxAdapter) -> None:
    assert outcome_after(sandbox, 0.4, prompt="[sandbox:stuck]") == Pending()
    assert outcome_after(sandbox, 1e7, prompt="[sandbox:stuck] [sandbox:fail]") == Running()


def test_words_that_are_no_directive_do_nothing(sandbox: SandboxAdapter) -> None:
    for prompt in ("sandbox:fail", "[sandbox:failed]", "[sandbox: fail]", "[sandbox:]", "[sandbox:unknown=3]"):
        assert isinstance(outcome_after(sandbox, 2, prompt=prompt), Succeeded)


def test_audio_cannot_be_the_only_reference(sandbox: SandboxAdapter) -> None:
    audio = ("https://example.com/a.mp3",)
    outcome = refused(sandbox, audio_urls=audio)
    assert outcome.error_class is ErrorClass.CUSTOMER_INPUT
    assert "audio" in outcome.detail
    for others in (
        {"image_urls": ("https://example.com/a.png",)},
        {"video_urls": ("https://example.com/a.mp4",)},
        {"first_frame_url": "https://example.com/a.png"},
    ):
        submit(sandbox, audio_urls=audio, **others)


def test_what_cannot_be_rendered_is_refused(sandbox: SandboxAdapter) -> None:
    for changes in ({"resolution": "2k"}, {"aspect_ratio": "5:4"}, {"duration": 0}, {"duration": 61}):
        assert refused(sandbox, **changes).error_class is ErrorClass.OUR_BUG


def test_callback_token_counts_once(sandbox: SandboxAdapter) -> None:
    submit_with_token(sandbox, "token")
    outcome = sandbox.submit(REQUEST, upstream_model="sandbox", ticket=Ticket("token", ""))
    assert isinstance(outcome, Refused)
    assert outcome.error_class is ErrorClass.OUR_BUG
    assert SandboxRun.objects.count() == 1


def test_lost_submission_is_found_by_its_token(sandbox: SandboxAdapter) -> None:
    upstream_id = submit_with_token(sandbox, "token")
    submit_with_token(sandbox, "another")
    digest = hashlib.sha256(b"token").digest()
    assert sandbox.recover(lost(digest)) == [Accepted(upstream_id)]
    assert sandbox.recover(lost(hashlib.sha256(b"none").digest())) == []


def test_books_hold_the_request(sandbox: SandboxAdapter) -> None:
    upstream_id = submit(sandbox, image_urls=("https://example.com/a.png",), seed=7)
    run = SandboxRun.objects.get(pk=upstream_id)
    assert upstream_id.startswith("sbx_")
    assert JobRequest.from_json(run.request) == dataclasses.replace(
        REQUEST, image_urls=("https://example.com/a.png",), seed=7
    )


def test_many_are_fetched_with_one_query(sandbox: SandboxAdapter, django_assert_num_queries: object) -> None:
    with time_machine.travel(START, tick=False) as clock:
        old = submit(sandbox)
        clock.shift(5)
        new = submit(sandbox)
        with django_assert_num_queries(1):  # type: ignore[operator]
            found = sandbox.fetch_many([Ref(new), Ref(old), Ref("sbx_none")])
    assert list(found) == [new, old, "sbx_none"]
    assert [type(progress) for progress in found.values()] == [Pending, Succeeded, Unreadable]


def test_only_a_queued_run_can_be_cancelled(sandbox: SandboxAdapter) -> None:
    with time_machine.travel(START, tick=False) as clock:
        cancelled, kept = submit(sandbox), submit(sandbox)
        assert sandbox.cancel(Ref(cancelled)) is Cancellation.DONE
        clock.shift(0.5)
        assert sandbox.cancel(Ref(cancelled)) is Cancellation.DONE
        assert sandbox.cancel(Ref(kept)) is Cancellation.TOO_LATE
        assert sandbox.cancel(Ref("sbx_none")) is Cancellation.TOO_LATE
        clock.shift(10)
        assert isinstance(sandbox.fetch(Ref(cancelled)), Failed)
        assert isinstance(sandbox.fetch(Ref(kept)), Succeeded)


def test_last_frame_is_offered_only_where_asked(sandbox: SandboxAdapter) -> None:
    assert finished(sandbox).last_frame_url is None
    assert finished(sandbox, return_last_frame=True).last_frame_url is not None


def test_download_gives_the_asked_video_the_same_each_time(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    outcome = finished(sandbox, aspect_ratio="9:16")
    for name in ("first", "second"):
        sandbox.download(outcome.video_url, tmp_path / name, max_bytes=ENOUGH)
    info = media_probe.probe(tmp_path / "first")
    assert (info.width, info.height, info.duration_ms, info.has_audio) == (496, 864, 4000, True)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_seed_decides_the_picture_and_each_run_without_one_differs(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    def last_frame(seed: int | None) -> bytes:
        url = finished(sandbox, seed=seed, return_last_frame=True).last_frame_url
        assert url is not None
        sandbox.download(url, tmp_path / "last.png", max_bytes=ENOUGH)
        return (tmp_path / "last.png").read_bytes()

    assert last_frame(7) == last_frame(7) != last_frame(8)
    assert last_frame(0) == last_frame(0)
    for no_seed in (None, -1):
        assert last_frame(no_seed) != last_frame(no_seed)


def test_what_is_not_there_cannot_be_downloaded(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    ready = finished(sandbox).video_url
    failed = f"sandbox://{long_ago(sandbox, prompt='[sandbox:fail]')}/video.mp4"
    for url in (
        "sandbox://sbx_none/video.mp4",
        ready.replace("video.mp4", "last.png"),
        ready.replace("video.mp4", "../video.mp4"),
        ready.replace("sandbox:", "https:"),
        failed,
        "",
    ):
        with pytest.raises(DownloadError) as caught:
            sandbox.download(url, tmp_path / "video", max_bytes=ENOUGH)
        assert caught.value.is_final
    assert not (tmp_path / "video").exists()


def test_what_is_not_ready_yet_is_worth_another_try(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    with time_machine.travel(START, tick=False) as clock:
        url = f"sandbox://{submit(sandbox)}/video.mp4"
        for seconds in (0.0, 1.5):
            clock.shift(seconds)
            with pytest.raises(DownloadError) as caught:
                sandbox.download(url, tmp_path / "video", max_bytes=ENOUGH)
            assert not caught.value.is_final


def test_too_large_an_output_is_not_kept(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        sandbox.download(finished(sandbox).video_url, tmp_path / "video", max_bytes=1000)
    assert caught.value.is_final
    assert not (tmp_path / "video").exists()


def test_a_place_that_cannot_be_written_is_worth_another_try(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        sandbox.download(finished(sandbox).video_url, tmp_path / "none" / "video", max_bytes=ENOUGH)
    assert not caught.value.is_final


def test_each_call_is_noted_without_the_customers_words(sandbox: SandboxAdapter, tmp_path: Path) -> None:
    video_url = finished(sandbox, image_urls=("https://example.com/private?token=1",)).video_url
    upstream_id = video_url.split("/")[2]
    sandbox.exchanges.clear()
    submit(sandbox, image_urls=("https://example.com/private?token=1",))
    sandbox.fetch(Ref(upstream_id))
    sandbox.recover(lost(b"none"))
    sandbox.cancel(Ref(upstream_id))
    sandbox.download(video_url, tmp_path / "video", max_bytes=ENOUGH)
    with pytest.raises(DownloadError):
        sandbox.download("sandbox://none/video.mp4", tmp_path / "video", max_bytes=ENOUGH)
    kinds = [exchange.kind for exchange in sandbox.exchanges]
    assert kinds == ["submit", "fetch", "recover", "cancel", "download", "download"]
    told = "".join(exchange.request + exchange.response for exchange in sandbox.exchanges)
    assert "lighthouse" not in told
    assert "private" not in told
    assert json.loads(sandbox.exchanges[0].request)["prompt_length"] == len(REQUEST.prompt)
    assert "no such output" in sandbox.exchanges[-1].response
