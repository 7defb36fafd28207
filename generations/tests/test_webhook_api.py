"""What customers see of their webhooks under /v1/webhooks, and what they may do about them."""

import datetime as dt
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import stripe
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from generations.tests.callers import Caller
from seedancee2.lib import clock, ids, wakeups
from tests.receivers import Answer, Receiver
from webhooks import deliveries, delivery, samples, secrets
from webhooks.models import Delivery, DeliveryAttempt, SamplePlace
from webhooks.tests.factories import DeliveryFactory

pytestmark = pytest.mark.django_db

BASE = "/v1/webhooks/deliveries"
NOON = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
EVENTS = ["video.generation.completed", "video.generation.failed"]
KEYS = [
    *("id", "task_id", "event", "url", "state", "attempt_count", "next_attempt_at", "created_at", "delivered_at"),
]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as running:
        yield running


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the tasks that are woken instead of waking them."""
    names: list[str] = []
    monkeypatch.setattr(wakeups, "on_commit", names.append)
    return names


def make(caller: Caller, state: str = "pending", **values: Any) -> Delivery:
    """Write a delivery of a customer; one that has ended did so now."""
    if state != "pending":
        values = {"due_at": None, "finished_at": clock.now()} | values
    return DeliveryFactory.create(organization=caller.organization, state=state, **values)


def make_series(caller: Caller, count: int) -> list[Delivery]:
    """Write deliveries a second apart, of all events and states in turn; return them newest first."""
    made = []
    states = ["pending", "delivered", "abandoned"]
    for second in range(count):
        moment = NOON + dt.timedelta(seconds=second)
        made.append(make(caller, states[second % 3], event=EVENTS[second % 2], created_at=moment))
    return made[::-1]


def shown(reply: Any) -> list[str]:
    assert reply.status_code == 200, reply.content
    return [row["id"] for row in reply.json()["data"]]


def message(reply: Any, status: int = 400) -> str:
    assert reply.status_code == status, reply.content
    return str(reply.json()["error"]["message"])


def attempt_due() -> None:
    """Send everything that is due, as the worker does."""
    while claimed := delivery.claim_due(16):
        for one in claimed:
            delivery.attempt(one)


# --- The list ---


def test_a_list_without_deliveries_is_empty(customer: Caller) -> None:
    reply = customer.get(BASE)

    assert reply.content == b'{"data":[]}'
    assert "Link" not in reply.headers


def test_a_delivery_shows_these_keys_and_no_others(customer: Caller) -> None:
    row = make(customer, url="https://customer.example/hook?token=1", created_at=NOON, due_at=NOON, attempt_count=3)

    (data,) = customer.get(BASE).json()["data"]

    assert list(data) == KEYS
    assert data == {
        "id": row.pk,
        "task_id": row.reference,
        "event": "video.generation.completed",
        "url": "https://customer.example/hook?token=1",
        "state": "pending",
        "attempt_count": 3,
        "next_attempt_at": "2026-07-01T12:00:00.000Z",
        "created_at": "2026-07-01T12:00:00.000Z",
        "delivered_at": None,
    }


def test_states_in_the_customers_words(customer: Caller) -> None:
    make(customer, "delivered", created_at=NOON, finished_at=NOON + dt.timedelta(seconds=1))
    make(customer, "abandoned", created_at=NOON - dt.timedelta(hours=1))

    delivered, failed = customer.get(BASE).json()["data"]

    assert (delivered["state"], delivered["next_attempt_at"]) == ("delivered", None)
    assert delivered["delivered_at"] == "2026-07-01T12:00:01.000Z"
    assert (failed["state"], failed["next_attempt_at"], failed["delivered_at"]) == ("failed", None, None)


def test_every_filter_alone_and_together(customer: Caller, stranger: Caller) -> None:
    made = make_series(customer, 12)
    make_series(stranger, 12)
    words = {"pending": "pending", "delivered": "delivered", "abandoned": "failed"}

    def having(**values: str) -> list[str]:
        return [row.pk for row in made if all(getattr(row, name) == value for name, value in values.items())]

    assert shown(customer.get(BASE)) == [row.pk for row in made]
    for event in EVENTS:
        assert shown(customer.get(f"{BASE}?event={event}")) == having(event=event)
    for state, word in words.items():
        assert shown(customer.get(f"{BASE}?state={word}")) == having(state=state)
        for event in EVENTS:
            both = f"{BASE}?state={word}&event={event}"
            assert shown(customer.get(both)) == having(state=state, event=event)
    one = made[4]
    assert shown(customer.get(f"{BASE}?task={one.reference}")) == [one.pk]
    assert shown(customer.get(f"{BASE}?task={one.reference}&event={one.event}")) == [one.pk]
    assert shown(customer.get(f"{BASE}?task={one.reference}&state=pending")) == having(pk=one.pk, state="pending")
    assert shown(customer.get(f"{BASE}?task=nonsense")) == []
    fourth = "2026-07-01T12:00:03.000Z"
    assert shown(customer.get(f"{BASE}?created_after={fourth}")) == [row.pk for row in made[:9]]
    assert shown(customer.get(f"{BASE}?created_before={fourth}")) == [row.pk for row in made[9:]]
    assert shown(customer.get(f"{BASE}?created_after=2026-07-01&created_before=2026-07-02&limit=100")) == having()


@pytest.mark.parametrize("filters", ["", "&state=failed", "&event=video.generation.failed"])
def test_pages_follow_each_other_whatever_is_written_meanwhile(customer: Caller, filters: str) -> None:
    make_series(customer, 14)
    tied = [make(customer, "abandoned", event=EVENTS[1], created_at=NOON) for _ in range(3)]
    everything = shown(customer.get(f"{BASE}?limit=100{filters}"))
    assert {row.pk for row in tied} <= set(everything)

    seen: list[str] = []
    path: str | None = f"{BASE}?limit=2{filters}"
    while path:
        reply = customer.get(path)
        seen += shown(reply)
        link = re.fullmatch(r'<http://testserver(/[^>]+)>; rel="next"', reply.headers.get("Link", ""))
        path = link[1] if link else None
        make(customer, "abandoned", event=EVENTS[1])

    assert seen == everything


def test_every_bad_parameter_is_named(customer: Caller) -> None:
    reply = customer.get(f"{BASE}?state=abandoned&event=x&limit=0&created_after=yesterday&task=%00")

    assert message(reply) == (
        "task must not contain NUL characters."
        " event must be one of video.generation.completed, video.generation.failed."
        " state must be one of pending, delivered, failed."
        " limit must be an integer between 1 and 100."
        " created_after must be an ISO 8601 date or datetime, such as 2026-07-01T00:00:00.000Z."
    )


@pytest.mark.parametrize("cursor", ["", "x", "%00", "MTc4MjcyNzIwMDAwMC52aWRfMDFqejhiN3E0eDhrMnA5dzNtNWM2bjdyOHM"])
def test_a_cursor_of_another_list_is_refused(customer: Caller, cursor: str) -> None:
    assert "cursor" in message(customer.get(f"{BASE}?cursor={cursor}"))


def test_etags_hold_for_lists_and_single_deliveries(customer: Caller) -> None:
    row = make(customer)
    for path in (BASE, f"{BASE}/{row.pk}"):
        first = customer.get(path)
        again = customer.get(path, if_none_match=first.headers["ETag"])
        assert (again.status_code, again.content) == (304, b"")


def test_a_list_reads_the_same_number_of_times_for_one_as_for_many_and_no_bodies(customer: Caller) -> None:
    make_series(customer, 30)
    customer.get(BASE)

    with CaptureQueriesContext(connection) as queries:
        customer.get(f"{BASE}?limit=30")

    assert len(queries) == 4  # the key, the page's ids, the rows, the endpoints of those that wait
    assert '"webhooks_delivery"."body"' not in "".join(query["sql"] for query in queries)


# --- One delivery ---


def test_a_delivery_shows_its_attempts_and_its_body(customer: Caller, receiver: Receiver) -> None:
    body = '{"data":{"id":"vid_1","metadata":{"note":"ü 🎬"}}}'
    row = make(customer, url=receiver.url("/hook"), body=body.encode())
    receiver.plan("/hook", Answer(500, b"<b>oops"), Answer(301), Answer(is_reset=True), Answer(202, b"thanks"))
    for _ in range(4):
        Delivery.objects.update(due_at=clock.now())
        attempt_due()

    data = customer.get(f"{BASE}/{row.pk}").json()["data"]

    assert list(data) == [*KEYS, "attempts", "body"]
    assert (data["state"], data["attempt_count"], data["body"]) == ("delivered", 4, json.loads(body))
    assert [(one["number"], one["status_code"], one["response_excerpt"], one["error"]) for one in data["attempts"]] == [
        (1, 500, "<b>oops", "The server answered 500 instead of a 2xx status."),
        (2, 301, "ok", "The server answered 301 instead of a 2xx status. Redirects are not followed."),
        (3, None, "", "The connection was closed before the whole reply had come."),
        (4, 202, "thanks", None),
    ]
    assert all(0 <= one["duration_ms"] < 5000 for one in data["attempts"])
    assert data["attempts"][3]["started_at"] <= data["delivered_at"]


def test_a_body_that_is_no_longer_kept_shows_as_null(customer: Caller) -> None:
    row = make(customer, "delivered", body=b"")

    data = customer.get(f"{BASE}/{row.pk}").json()["data"]

    assert (data["body"], data["attempts"]) == (None, [])


def test_of_very_many_attempts_the_last_are_shown(customer: Caller) -> None:
    row = make(customer, "abandoned", attempt_count=130)
    DeliveryAttempt.objects.bulk_create(
        DeliveryAttempt(delivery=row, number=number, started_at=NOON, duration_ms=1, status_code=500)
        for number in range(1, 131)
    )

    data = customer.get(f"{BASE}/{row.pk}").json()["data"]

    assert [one["number"] for one in data["attempts"]] == list(range(31, 131))


# --- Redelivery ---


def test_a_delivered_one_is_sent_again_with_the_same_id_and_bytes(
    customer: Caller, receiver: Receiver, woken: list[str]
) -> None:
    row = make(customer, url=receiver.url("/hook"), body='{"data":{"note":"🎬"}}'.encode())
    attempt_due()
    first_delivered = customer.get(f"{BASE}/{row.pk}").json()["data"]["delivered_at"]

    reply = customer.post(f"{BASE}/{row.pk}/redeliver")

    data = reply.json()["data"]
    assert (reply.status_code, list(data), data["state"], data["attempt_count"]) == (202, KEYS, "pending", 1)
    assert data["next_attempt_at"] is not None
    assert data["delivered_at"] == first_delivered
    assert woken == ["webhooks.deliver"]
    attempt_due()
    first, second = receiver.requests
    assert hashlib.sha256(first.body).digest() == hashlib.sha256(second.body).digest()
    assert first.headers["x-seedancee2-delivery"] == second.headers["x-seedancee2-delivery"] == row.pk
    assert [one.headers["x-seedancee2-attempt"] for one in (first, second)] == ["1", "2"]
    again = customer.get(f"{BASE}/{row.pk}").json()["data"]
    assert (again["state"], [one["number"] for one in again["attempts"]]) == ("delivered", [1, 2])
    assert again["delivered_at"] == first_delivered
    assert Delivery.objects.count() == 1


def test_a_failed_one_begins_a_fresh_schedule_of_twelve_and_stays_delivered_once(
    customer: Caller, receiver: Receiver
) -> None:
    receiver.plan("/hook", Answer(200), Answer(500))
    with time_machine.travel(NOON, tick=False) as traveller:
        row = make(customer, url=receiver.url("/hook"))
        attempt_due()
        for ended_with in (13, 25):
            assert customer.post(f"{BASE}/{row.pk}/redeliver").status_code == 202
            gaps = []
            for number in range(ended_with - 12, ended_with):
                waiting = Delivery.objects.select_related("endpoint").get(attempt_count=number)
                assert waiting.due_at
                assert waiting.next_attempt_at
                gaps.append((waiting.due_at - clock.now()).total_seconds())
                # A pause of the endpoint puts an attempt off, and the schedule goes on from there.
                traveller.move_to(waiting.next_attempt_at)
                attempt_due()
            ended = Delivery.objects.get()
            assert (ended.attempt_count, ended.due_at) == (ended_with, None)
            assert gaps[0] == 0
            for gap, base in zip(gaps, delivery.SCHEDULE, strict=True):
                assert base <= gap <= base * 1.2 + 0.001

        data = customer.get(f"{BASE}/{row.pk}").json()["data"]
    assert (data["state"], data["delivered_at"]) == ("failed", "2026-07-01T12:00:00.000Z")
    assert [one["number"] for one in data["attempts"]] == list(range(1, 26))
    assert len({one.headers["x-seedancee2-delivery"] for one in receiver.requests}) == 1


def test_a_pending_one_becomes_due_now_and_begins_its_schedule_anew(customer: Caller, woken: list[str]) -> None:
    row = make(customer, attempt_count=5, due_at=clock.now() + dt.timedelta(hours=1))

    data = customer.post(f"{BASE}/{row.pk}/redeliver").json()["data"]

    now = clock.now()
    row.refresh_from_db()
    assert row.due_at is not None
    assert now - dt.timedelta(seconds=5) < row.due_at <= now
    assert (row.state, row.attempt_count, row.schedule_base) == ("pending", 5, 5)
    assert (data["state"], woken, Delivery.objects.count()) == ("pending", ["webhooks.deliver"], 1)


def test_one_that_somebody_waits_for_goes_before_all_that_are_due(customer: Caller) -> None:
    row = make(customer, due_at=NOON)
    others = [make(customer, due_at=NOON - dt.timedelta(seconds=second)) for second in (1, 2)]
    elsewhere = make(customer, due_at=NOON - dt.timedelta(hours=1), url="https://elsewhere.example/")

    customer.post(f"{BASE}/{row.pk}/redeliver")

    row.refresh_from_db()
    assert row.due_at is not None
    assert [other.due_at for other in others if other.due_at and other.due_at <= row.due_at] == []
    assert elsewhere.due_at is not None
    assert elsewhere.due_at < row.due_at


def test_one_that_is_being_sent_now_is_left_alone(customer: Caller, woken: list[str]) -> None:
    row = make(customer)
    [claimed] = delivery.claim_due(1)
    before = Delivery.objects.values().get()

    reply = customer.post(f"{BASE}/{row.pk}/redeliver")

    assert (reply.status_code, reply.json()["data"]["state"]) == (202, "pending")
    assert Delivery.objects.values().get() == before
    assert (woken, claimed.pk) == ([], row.pk)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"body": b""}, "was deleted after 30 days, so that it cannot be sent again."),
        ({"attempt_count": 500}, "This webhook was sent 500 times; it cannot be sent again."),
    ],
)
def test_what_cannot_be_sent_again_is_refused_and_stays(
    customer: Caller, woken: list[str], values: Any, told: str
) -> None:
    row = make(customer, "abandoned", **values)
    before = Delivery.objects.values().get()

    assert told in message(customer.post(f"{BASE}/{row.pk}/redeliver"))

    assert Delivery.objects.values().get() == before
    assert woken == []


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_redeliveries_at_once_send_once(customer: Caller, receiver: Receiver) -> None:
    row = make(customer, "abandoned", url=receiver.url("/hook"))
    start = threading.Barrier(8)
    statuses: list[int] = []

    def redeliver() -> None:
        try:
            start.wait()
            statuses.append(customer.post(f"{BASE}/{row.pk}/redeliver").status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=redeliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attempt_due()

    assert statuses == [202] * 8
    assert len(receiver.requests) == 1
    row.refresh_from_db()
    assert (row.state, row.attempt_count) == ("delivered", 1)


# --- Recovery ---


def recover(caller: Caller, since: Any, **more: Any) -> Any:
    return caller.post("/v1/webhooks/recover", {"since": since, **more})


def test_what_failed_since_then_is_opened_again_and_nothing_else(customer: Caller, woken: list[str]) -> None:
    now = clock.now()
    since = now - dt.timedelta(hours=2)
    wanted = [make(customer, "abandoned", finished_at=since, attempt_count=12), make(customer, "abandoned")]
    others = [
        make(customer, "abandoned", finished_at=since - dt.timedelta(milliseconds=1)),
        make(customer, "delivered"),
        make(customer, due_at=now + dt.timedelta(hours=3)),
        make(customer, "abandoned", body=b""),
        make(customer, "abandoned", attempt_count=500),
        make(customer, "abandoned", is_test=True),
    ]
    before = list(Delivery.objects.filter(pk__in=[row.pk for row in others]).order_by("pk").values())

    reply = recover(customer, clock.iso(since))

    assert (reply.status_code, reply.json()) == (200, {"data": {"recovered_count": 2, "has_more": False}})
    rows = Delivery.objects.filter(pk__in=[row.pk for row in wanted])
    assert set(rows.values_list("state", "schedule_base", "finished_at")) == {
        ("pending", 12, None),
        ("pending", 0, None),
    }
    # One after the other, so that new events find their place among them.
    due = sorted(row.due_at for row in rows if row.due_at)
    assert due[1] - due[0] == dt.timedelta(milliseconds=50)
    assert now <= due[0] <= clock.now()
    assert list(Delivery.objects.filter(pk__in=[row.pk for row in others]).order_by("pk").values()) == before
    assert set(woken) == {"webhooks.deliver"}
    assert recover(customer, clock.iso(since)).json()["data"]["recovered_count"] == 0


def test_recovery_goes_in_batches_up_to_a_limit(customer: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "_BATCH", 3)
    monkeypatch.setattr(deliveries, "MAX_RECOVERED", 7)
    oldest_first = [
        make(customer, "abandoned", finished_at=clock.now() - dt.timedelta(minutes=60 - number)) for number in range(9)
    ]
    since = clock.iso(clock.now() - dt.timedelta(days=1))

    assert recover(customer, since).json()["data"] == {"recovered_count": 7, "has_more": True}
    left = set(Delivery.objects.filter(state="abandoned").values_list("pk", flat=True))
    assert left == {row.pk for row in oldest_first[7:]}
    assert recover(customer, since).json()["data"] == {"recovered_count": 2, "has_more": False}


def test_what_is_recovered_arrives(customer: Caller, receiver: Receiver) -> None:
    rows = [make(customer, "abandoned", url=receiver.url("/hook"), attempt_count=12) for _ in range(5)]

    recover(customer, clock.iso(clock.now() - dt.timedelta(days=1)))
    with time_machine.travel(clock.now() + dt.timedelta(seconds=1)):
        attempt_due()

    assert {one.headers["x-seedancee2-delivery"] for one in receiver.requests} == {row.pk for row in rows}
    assert {one.headers["x-seedancee2-attempt"] for one in receiver.requests} == {"13"}
    assert len(receiver.requests) == 5


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "since is required."),
        ({"since": None}, "since is required."),
        ({"since": 5}, "since must be a string."),
        ({"since": "yesterday"}, "since must be an ISO 8601 date or datetime, such as 2026-07-01T00:00:00.000Z."),
        ({"sinse": "2026-07-01"}, "sinse is not a field; did you mean since?"),
        ({"since": "2020-01-01"}, "since must lie within the last 30 days."),
        ({"since": "2120-01-01"}, "since must not lie in the future."),
    ],
)
def test_a_bad_since_is_refused_and_opens_nothing(customer: Caller, body: Any, told: str) -> None:
    make(customer, "abandoned")

    assert message(customer.post("/v1/webhooks/recover", body)) == told

    assert Delivery.objects.get().state == "abandoned"


def test_unknown_keys_are_named_and_ignored(customer: Caller) -> None:
    reply = recover(customer, clock.iso(clock.now()), note="after the outage")

    assert (reply.status_code, reply.headers["X-Seedancee2-Ignored-Fields"]) == (200, "note")


# --- Test webhooks ---


def send_test(caller: Caller, url: str, **more: Any) -> Any:
    return caller.post("/v1/webhooks/test", {"url": url, **more})


@pytest.mark.parametrize("event", EVENTS)
def test_a_sample_of_either_event_is_sent_signed_and_told_in_full(
    customer: Caller, receiver: Receiver, event: str
) -> None:
    receiver.plan("/hook", Answer(201, b"taken"))

    data = send_test(customer, receiver.url("/hook"), event=event).json()["data"]

    [request] = receiver.requests
    duration = data.pop("duration_ms")
    assert 0 <= duration < 5000
    told = data.pop("request")
    assert data == {"is_delivered": True, "status_code": 201, "response_excerpt": "taken", "error": None}
    assert (told["url"], told["body"].encode()) == (receiver.url("/hook"), request.body)
    assert {name.lower(): value for name, value in told["headers"].items()}.items() <= request.headers.items()
    assert request.headers["x-seedancee2-event"] == event
    assert ids.is_valid(request.headers["x-seedancee2-delivery"], "dlv")
    assert json.loads(request.body)["data"]["status"] == event.rpartition(".")[2]
    secret = secrets.current(organization_id=customer.organization.pk)
    signature = request.headers["x-seedancee2-signature"]
    assert stripe.WebhookSignature.verify_header(request.body.decode(), signature, secret, tolerance=300)
    assert not Delivery.objects.exists()
    assert not DeliveryAttempt.objects.exists()
    assert not SamplePlace.objects.exists()


def test_a_sample_carries_no_signature_where_signing_is_off(customer: Caller, receiver: Receiver) -> None:
    customer.organization.is_webhook_signing_enabled = False
    customer.organization.save()

    data = send_test(customer, receiver.url("/hook")).json()["data"]

    assert "x-seedancee2-signature" not in receiver.requests[0].headers
    assert "X-Seedancee2-Signature" not in data["request"]["headers"]


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(404, b"who?"), 404, "The server answered 404 instead of a 2xx status."),
        (Answer(302), 302, "The server answered 302 instead of a 2xx status. Redirects are not followed."),
        (Answer(is_reset=True), None, "The connection was closed before the whole reply had come."),
        (Answer(raw=b"garbage\r\n\r\n"), None, "The reply was not valid HTTP."),
    ],
)
def test_what_goes_wrong_with_a_sample_is_told_in_a_sentence(
    customer: Caller, receiver: Receiver, answer: Answer, status: int | None, error: str
) -> None:
    receiver.plan("/hook", answer)

    reply = send_test(customer, receiver.url("/hook"))

    data = reply.json()["data"]
    assert (reply.status_code, data["is_delivered"]) == (200, False)
    assert (data["status_code"], data["error"]) == (status, error)
    assert len(receiver.requests) == 1


def test_a_sample_has_the_deadline_and_the_size_of_a_real_webhook(
    customer: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.plan("/slow", Answer(body=b"x" * 1000, body_drip=0.05))
    receiver.plan("/long", Answer(body=b"x" * 200_000))

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "DEADLINE_SECONDS", 1.5)
        slow = send_test(customer, receiver.url("/slow")).json()["data"]
    long = send_test(customer, receiver.url("/long")).json()["data"]

    assert slow["error"] == "The reply had not ended after 10 seconds."
    assert slow["duration_ms"] < 2_500
    assert (long["is_delivered"], len(long["response_excerpt"])) == (True, 2000)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "url is required."),
        ({"url": "http://127.0.0.1/x"}, "url must not point to a private address."),
        ({"url": "http://[::ffff:169.254.169.254]/x"}, "url must not point to a private address."),
        ({"url": "ftp://example.com/x"}, "url must be an absolute http or https URL."),
        (
            {"url": "https://example.com/x", "event": "video.generation.started"},
            "event must be one of video.generation.completed, video.generation.failed.",
        ),
        ({"uri": "https://example.com/x"}, "uri is not a field; did you mean url?"),
        ({"url": 5, "events": "x"}, "events is not a field; did you mean event? url must be a string."),
    ],
)
def test_a_bad_request_for_a_sample_sends_nothing(customer: Caller, body: Any, told: str) -> None:
    assert message(customer.post("/v1/webhooks/test", body)) == told
    assert not SamplePlace.objects.exists()


def test_a_name_with_a_private_address_is_not_called(customer: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as internal:
        monkeypatch.setattr(
            "socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", internal.port))], raising=True
        )
        data = send_test(customer, f"http://rebound.example:{internal.port}/hook").json()["data"]

        assert internal.connection_count == 0
    assert (data["is_delivered"], data["error"]) == (False, "The URL must not point to a private address.")


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_two_samples_of_an_organization_can_be_under_way_at_once(
    customer: Caller, stranger: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_threads", threading.BoundedSemaphore(8))
    is_answered = threading.Event()
    monkeypatch.setattr(receiver, "_pause", lambda seconds: is_answered.wait(20) if seconds else None)
    receiver.plan("/slow", Answer(delay=1))
    statuses: list[int] = []

    def send() -> None:
        try:
            statuses.append(send_test(customer, receiver.url("/slow")).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(receiver.received("/slow")) < 2:
        assert all(thread.is_alive() for thread in threads)
    third = send_test(customer, receiver.url("/third"))
    other = send_test(stranger, receiver.url("/other"))
    is_answered.set()
    for thread in threads:
        thread.join()

    assert (third.status_code, third.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert third.headers["Retry-After"] == "2"
    assert receiver.received("/third") == []
    assert (other.status_code, statuses) == (200, [200, 200])
    assert send_test(customer, receiver.url("/third")).status_code == 200
    assert not SamplePlace.objects.exists()


def test_a_place_that_a_dead_process_left_is_free_again(customer: Caller, receiver: Receiver) -> None:
    for _ in range(2):
        SamplePlace.objects.create(organization=customer.organization, ends_at=clock.now() + dt.timedelta(seconds=1))
    assert send_test(customer, receiver.url("/hook")).status_code == 429

    with time_machine.travel(clock.now() + dt.timedelta(seconds=2)):
        assert send_test(customer, receiver.url("/hook")).status_code == 200


def test_a_process_keeps_threads_for_other_requests(customer: Caller, receiver: Receiver) -> None:
    with samples._thread(), samples._thread():
        assert send_test(customer, receiver.url("/hook")).status_code == 429
    assert send_test(customer, receiver.url("/hook")).status_code == 200
    assert len(receiver.requests) == 1


def test_these_requests_do_not_count_as_creates(customer: Caller, settings: Any) -> None:
    settings.RATE_LIMIT_CREATES = 1
    row = make(customer)

    replies = [customer.post(f"{BASE}/{row.pk}/redeliver") for _ in range(3)]

    assert [reply.status_code for reply in replies] == [202] * 3
    assert {reply.headers["RateLimit-Limit"] for reply in replies} == {str(settings.RATE_LIMIT_REQUESTS)}
