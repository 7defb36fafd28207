"""One attempt after another: what is sent, what is recorded, when it comes again."""

import datetime as dt
import itertools
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import stripe
import time_machine
from django.db import OperationalError, connection

from seedancee2.lib import clock, lanes
from tests.receivers import Answer, Receiver, black_hole
from webhooks import delivery as deliveries
from webhooks import secrets
from webhooks.delivery import SCHEDULE, Outcome
from webhooks.models import Delivery, DeliveryAttempt
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

HOUR = 3600


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as running:
        yield running


def attempt_next() -> Delivery:
    """Claim the one due delivery, attempt it and return it as it is then."""
    [claimed] = deliveries.claim_due(16)
    deliveries.attempt(claimed)
    claimed.refresh_from_db()
    return claimed


def test_delivered_with_all_its_headers(receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(202, b"tha\x00nks \xff"))
    sent = DeliveryFactory.create(url=receiver.url("/hook"))

    done = attempt_next()

    [request] = receiver.requests
    assert (request.method, request.body) == ("POST", sent.body)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "Seedancee2-Webhooks/1.0"
    assert request.headers["x-seedancee2-event"] == "video.generation.completed"
    assert request.headers["x-seedancee2-delivery"] == sent.delivery_id
    assert request.headers["x-seedancee2-attempt"] == "1"
    assert (done.state, done.attempt_count, done.due_at, done.lease_token) == ("delivered", 1, None, None)
    assert done.finished_at is not None
    [attempt] = done.attempts.all()
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 202, "")
    assert attempt.response_excerpt == "thanks \ufffd"
    assert deliveries.claim_due(16) == []


def test_a_stock_stripe_verifier_accepts_one_secret_and_two(receiver: Receiver) -> None:
    sent = DeliveryFactory.create(url=receiver.url("/hook"), body='{"data":"🎬"}'.encode())
    receiver.plan("/hook", Answer(500), Answer(200))
    old = secrets.current(organization_id=sent.organization_id)

    attempt_next()
    Delivery.objects.update(due_at=clock.now())
    new = secrets.rotate(organization_id=sent.organization_id)
    attempt_next()

    first, second = receiver.requests
    assert verifies(first, old)
    assert not verifies(first, new)
    assert verifies(second, old)
    assert verifies(second, new)
    assert second.headers["x-seedancee2-signature"].count("v1=") == 2
    assert (first.body, second.body) == (sent.body, sent.body)
    assert first.headers["x-seedancee2-delivery"] == second.headers["x-seedancee2-delivery"]
    assert second.headers["x-seedancee2-attempt"] == "2"


def verifies(request: Any, secret: str) -> bool:
    """Ask Stripe's own library about a request's signature."""
    try:
        stripe.WebhookSignature.verify_header(
            request.body.decode(), request.headers["x-seedancee2-signature"], secret, tolerance=300
        )
    except stripe.SignatureVerificationError:
        return False
    return True


def test_each_attempt_is_signed_afresh(receiver: Receiver) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"))
    receiver.plan("/hook", Answer(500))

    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        Delivery.objects.update(due_at=clock.now())
        attempt_next()
        traveller.shift(dt.timedelta(seconds=10))
        attempt_next()

    stamps = [request.headers["x-seedancee2-signature"].split(",")[0] for request in receiver.requests]
    assert stamps == ["t=1782727200", "t=1782727210"]


def test_no_signature_where_signing_is_off(receiver: Receiver) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"), organization__is_webhook_signing_enabled=False)

    attempt_next()

    assert "x-seedancee2-signature" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(301, headers={"Location": "/elsewhere"}), 301, "Redirects are not followed."),
        (Answer(400), 400, ""),
        (Answer(404), 404, ""),
        (Answer(500), 500, ""),
        (Answer(is_reset=True), None, "The connection was closed before the whole reply had come."),
        (Answer(raw=b"garbage\r\n\r\n"), None, "The reply was not valid HTTP."),
    ],
)
def test_failures_are_recorded_and_come_again(
    receiver: Receiver, answer: Answer, status: int | None, error: str
) -> None:
    receiver.plan("/hook", answer)
    DeliveryFactory.create(url=receiver.url("/hook"))

    before = clock.now()
    failed = attempt_next()

    assert (failed.state, failed.attempt_count, failed.lease_token, failed.leased_until) == ("pending", 1, None, None)
    assert failed.due_at is not None
    assert failed.due_at >= before + dt.timedelta(seconds=5)
    assert failed.due_at <= clock.now() + dt.timedelta(seconds=6.1)
    recorded = failed.attempts.get()
    assert (recorded.status_code, recorded.error) == (status, error)
    assert receiver.received("/elsewhere") == []


def test_a_slow_receiver_is_given_up_at_the_deadline(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "DEADLINE_SECONDS", 0.5)
    receiver.plan("/hook", Answer(body=b"x" * 1000, body_drip=0.05))
    DeliveryFactory.create(url=receiver.url("/hook"))

    recorded = attempt_next().attempts.get()

    assert (recorded.status_code, recorded.error) == (None, "The reply had not ended after 10 seconds.")
    assert 450 < recorded.duration_ms < 900


def test_only_so_much_of_a_reply_is_kept(receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(200, "ü".encode() * 1_000_000))
    DeliveryFactory.create(url=receiver.url("/hook"))

    assert attempt_next().attempts.get().response_excerpt == "ü" * 2000


def test_a_private_destination_is_never_called(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = []
    with Receiver() as internal:
        DeliveryFactory.create(url=internal.url("/hook"))

        failed = attempt_next()

        assert internal.connection_count == 0
    assert (failed.state, failed.attempts.get().error) == ("pending", "The URL must not point to a private address.")


def test_gone_ends_the_delivery(receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(410))
    DeliveryFactory.create(url=receiver.url("/hook"))

    gone = attempt_next()

    assert (gone.state, gone.due_at, gone.attempt_count) == ("abandoned", None, 1)
    assert gone.finished_at is not None


def test_twelve_attempts_follow_the_schedule_and_then_end(receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(500))
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        started = clock.now()
        DeliveryFactory.create(url=receiver.url("/hook"))
        times = []
        while due := Delivery.objects.get().due_at:
            traveller.move_to(due)
            times.append(due)
            attempt_next()
        finished = Delivery.objects.get()

    assert (finished.state, finished.attempt_count, len(times)) == ("abandoned", 12, 12)
    assert dt.timedelta(hours=72) < times[-1] - started < dt.timedelta(hours=91)
    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)]
    for gap, base in zip(gaps, SCHEDULE[1:], strict=True):
        assert base <= gap <= base * 1.2 + 0.001
    assert [row.number for row in DeliveryAttempt.objects.order_by("number")] == list(range(1, 13))
    assert len({request.headers["x-seedancee2-delivery"] for request in receiver.requests}) == 1


def delay_after(attempt_count: int, outcome: Outcome) -> float:
    """Return the seconds until the next attempt."""
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False):
        due = deliveries.next_due_at(attempt_count=attempt_count, outcome=outcome)
        assert due is not None
        return (due - clock.now()).total_seconds()


def test_jitter_only_ever_adds_and_is_spread_evenly() -> None:
    random.seed(1)
    shares = [(delay_after(4, Outcome(500)) / 600 - 1) / 0.2 for _ in range(1000)]

    assert min(shares) >= 0
    assert max(shares) <= 1
    counts = [sum(1 for share in shares if tenth <= share * 10 < tenth + 1) for tenth in range(10)]
    assert sum((count - 100) ** 2 / 100 for count in counts) < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("attempt_count", "status", "retry_after", "lowest", "highest"),
    [
        (1, 429, "60", 60, 60),
        (1, 503, "60", 60, 60),
        (1, 500, "60", 5, 6),
        (1, 429, "1", 5, 6),
        (1, 429, "-5", 5, 6),
        (1, 429, "999999999999999999999", HOUR, HOUR),
        (1, 429, "soon", 5, 6),
        (1, 429, "", 5, 6),
        (1, 429, "１２", 5, 6),
        (1, 429, "Mon, 29 Jun 2026 10:02:00 GMT", 120, 120),
        (1, 429, "Mon, 29 Jun 2026 09:00:00 GMT", 5, 6),
        (1, 429, "Mon, 29 Jun 2099 10:00:00 GMT", HOUR, HOUR),
        (7, 429, str(9 * HOUR), 9 * HOUR, 9 * HOUR),
        (7, 429, str(11 * HOUR), 10 * HOUR, 10 * HOUR),
        (7, 429, str(HOUR), 5 * HOUR, 6 * HOUR),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    attempt_count: int, status: int, retry_after: str, lowest: float, highest: float
) -> None:
    assert lowest <= delay_after(attempt_count, Outcome(status, retry_after=retry_after)) <= highest


def test_retry_after_of_a_real_reply(receiver: Receiver) -> None:
    receiver.plan("/hook", Answer(429, headers={"retry-after": "100"}))
    DeliveryFactory.create(url=receiver.url("/hook"))

    before = clock.now()
    due = attempt_next().due_at

    assert due is not None
    assert before + dt.timedelta(seconds=100) <= due <= clock.now() + dt.timedelta(seconds=100)


def test_an_attempt_that_died_comes_again_under_the_same_number(receiver: Receiver) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"))
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        Delivery.objects.update(due_at=clock.now())
        [claimed] = deliveries.claim_due(1)
        deliveries._post(claimed, deliveries._headers(claimed, timestamp=1))

        traveller.shift(dt.timedelta(seconds=59))
        assert deliveries.claim_due(1) == []
        traveller.shift(dt.timedelta(seconds=1))
        done = attempt_next()

    first, second = receiver.requests
    for header in ("x-seedancee2-delivery", "x-seedancee2-attempt"):
        assert first.headers[header] == second.headers[header]
    assert first.body == second.body
    assert (done.state, done.attempt_count) == ("delivered", 1)


def test_who_lost_the_lease_sends_nothing(receiver: Receiver) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"))
    [claimed] = deliveries.claim_due(1)
    Delivery.objects.update(lease_token=uuid.uuid4())

    deliveries.attempt(claimed)

    assert receiver.requests == []


def test_who_has_too_little_of_the_lease_left_sends_nothing(receiver: Receiver) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"))
    [claimed] = deliveries.claim_due(1)
    Delivery.objects.update(leased_until=clock.now() + dt.timedelta(seconds=15))

    deliveries.attempt(claimed)

    assert receiver.requests == []


def test_who_lost_the_lease_while_sending_writes_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    DeliveryFactory.create(url=receiver.url("/hook"))
    post = deliveries._post

    def post_and_lose(*arguments: Any) -> Outcome:
        outcome = post(*arguments)
        Delivery.objects.update(lease_token=uuid.uuid4())
        return outcome

    monkeypatch.setattr(deliveries, "_post", post_and_lose)
    [claimed] = deliveries.claim_due(1)
    deliveries.attempt(claimed)

    row = Delivery.objects.get()
    assert (len(receiver.requests), row.state, row.attempt_count) == (1, "pending", 0)
    assert not DeliveryAttempt.objects.exists()


def test_what_was_taken_is_not_sent_again_because_the_database_hesitates(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deliveries, "_RECORD_PAUSES", (0.0, 0.0))
    DeliveryFactory.create(url=receiver.url("/hook"))
    refusals = itertools.count()

    def refuse_twice(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('INSERT INTO "webhooks_deliveryattempt"') and next(refusals) < 2:
            raise OperationalError("couldn't get a connection after 2.00 sec")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse_twice):
        done = attempt_next()

    assert len(receiver.requests) == done.attempts.count() == done.attempt_count == 1
    assert done.state == "delivered"
    assert caplog.text.count("'event': 'webhook_not_recorded'") == 2


def test_connections_are_not_kept_while_the_receiver_thinks(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    post = deliveries._post

    def noted_post(*arguments: Any) -> Outcome:
        order.append("post")
        return post(*arguments)

    monkeypatch.setattr(lanes, "release_connections", lambda: order.append("released"))
    monkeypatch.setattr(deliveries, "_post", noted_post)
    DeliveryFactory.create(url=receiver.url("/hook"))

    attempt_next()

    assert order == ["released", "post"]


def test_a_hanging_receiver_is_left(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    monkeypatch.setattr(deliveries, "DEADLINE_SECONDS", 0.3)
    with black_hole() as port:
        DeliveryFactory.create(url=f"http://127.0.0.1:{port}/")
        recorded = attempt_next().attempts.get()

    assert recorded.error == "No reply came within 10 seconds."
