"""What the documentation says of webhooks holds for real ones: bytes and headers that a receiver got over a socket."""

import ast
import datetime as dt
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from accounts.tests.factories import OrganizationFactory, issue_key
from seedancee2.console.tests.manual import fences
from seedancee2.console.tests.test_documentation_examples import _by_node, _by_python, _by_shell, _node, _tool
from seedancee2.lib import clock
from tests import web
from tests.receivers import Received, Receiver
from webhooks import delivery, openapi_examples, secrets
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

URL = "https://example.com/webhooks/seedancee2"
KEY = "sk_seedancee2_live_xxxxx"
BASE = "https://api.seedancee2.ai"
SINCE = openapi_examples.RECOVER["since"]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    with Receiver() as running:
        yield running


def _by_stripe(_folder: Any, body: bytes, header: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body.decode(), header, secret, tolerance=300))
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False


def deliver(receiver: Receiver) -> list[Received]:
    """Send all that is due, as the worker does, and return what was received."""
    while claimed := delivery.claim_due(16):
        for one in claimed:
            delivery.attempt(one)
    return receiver.received("/hook")


@pytest.mark.django_db
@pytest.mark.parametrize("verify", [_by_shell, _by_node, _by_python, _by_stripe])
def test_the_verifiers_take_real_deliveries_before_during_and_after_a_rotation(verify, receiver, tmp_path):
    organization = OrganizationFactory.create()
    body = '{"data":{"metadata":{"note":"100% \\"é\\" 漢字 🎬"}}}'.encode()

    def received() -> Received:
        DeliveryFactory.create(organization=organization, url=receiver.url("/hook"), body=body)
        return deliver(receiver)[-1]

    def is_taken(request: Received, secret: str) -> bool:
        return verify(tmp_path, request.body, request.headers["x-seedancee2-signature"], secret)

    old = secrets.current(organization_id=organization.pk)
    before = received()
    new = secrets.rotate(organization_id=organization.pk)
    during = received()
    newest = secrets.rotate(organization_id=organization.pk, overlap_seconds=0)
    after = received()

    assert [is_taken(before, secret) for secret in (old, new)] == [True, False]
    assert [is_taken(during, secret) for secret in (old, new)] == [True, True]
    assert [is_taken(after, secret) for secret in (old, new, newest)] == [False, False, True]
    changed = Received("POST", "/hook", after.headers, after.body[:-1] + b" ", 0.0)
    assert not is_taken(changed, newest)


@pytest.mark.django_db
def test_a_stock_stripe_verifier_takes_random_real_bodies_and_none_with_a_bit_changed(receiver):
    dice = random.Random(11)
    organizations = OrganizationFactory.create_batch(2)
    held = {row.pk: [secrets.current(organization_id=row.pk)] for row in organizations}
    rotated = organizations[1].pk
    held[rotated].append(secrets.rotate(organization_id=rotated))
    alphabet = 'abc {}[]",:\\/éß漢字🎬\u2028\x7f0123456789'
    made = [
        DeliveryFactory.build(
            organization=organizations[number % 2],
            url=receiver.url("/hook"),
            body="".join(dice.choices(alphabet, k=dice.choice([1, 50, 500, 20_000]))).encode(),
            reference=f"vid_{number}",
        )
        for number in range(100)
    ]
    Delivery.objects.bulk_create(made)

    requests = {request.headers["x-seedancee2-delivery"]: request for request in deliver(receiver)}

    assert len(receiver.requests) == len(requests) == 100
    for row in made:
        request = requests[row.pk]
        header = request.headers["x-seedancee2-signature"]
        assert request.body == row.body
        assert header.count("v1=") == len(held[row.organization_id])
        place, bit = dice.randrange(len(request.body)), 1 << dice.randrange(8)
        changed = request.body[:place] + bytes([request.body[place] ^ bit]) + request.body[place + 1 :]
        for secret in held[row.organization_id]:
            assert _by_stripe(None, request.body, header, secret)
            assert not _by_stripe(None, changed, header, secret)


# --- The examples, run as a customer would run them ---


def _example(section: str, language: str, number: int) -> str:
    found = [fence.content for fence in fences() if (fence.section, fence.language) == (section, language)]
    return found[number]


def _run(language: str, code: str, folder: Any) -> str:
    match language:
        case "bash":
            _tool("curl", "install curl")
            line = [_tool("bash", "install bash"), "-c", code]
        case "javascript":
            (folder / "example.mjs").write_text(code)
            line = [_node(), str(folder / "example.mjs")]
        case _:
            line = [sys.executable, "-c", code]
    return subprocess.run(line, capture_output=True, check=True, timeout=60).stdout.decode()


@pytest.mark.django_db(transaction=True)
def test_every_example_of_webhooks_in_practice_does_what_it_says(receiver, tmp_path, monkeypatch):
    monkeypatch.setenv("OUTBOUND_ALLOWED_HOSTS", "127.0.0.1")
    organization = OrganizationFactory.create()
    key = issue_key(organization)
    row = DeliveryFactory.create(
        organization=organization,
        delivery_id=openapi_examples.PENDING["id"],
        url=receiver.url("/hook"),
        **_ended(),
    )
    secret = secrets.current(organization_id=organization.pk)

    with web.server(tmp_path / "web.log") as base_url:

        def run(language: str, section: str, number: int = 0) -> Any:
            Delivery.objects.update(**_ended())
            code = _example(section, language, number)
            hour_ago = clock.iso(clock.now() - dt.timedelta(hours=1))
            for placeholder, value in ((BASE, base_url), (KEY, key), (URL, receiver.url("/sample")), (SINCE, hour_ago)):
                code = code.replace(placeholder, value)
            told = _run(language, code, tmp_path)
            row.refresh_from_db()
            # Node prints an object in a form of its own.
            match language:
                case "bash":
                    return json.loads(told)
                case "python":
                    return ast.literal_eval(told)
            return told

        for count, language in enumerate(("bash", "javascript", "python"), start=1):
            for number in (0, 1):
                assert row.pk in str(run(language, "see-what-became-of-a-webhook", number))
            assert row.state == "abandoned"
            assert "pending" in str(run(language, "send-a-webhook-again"))
            assert len(deliver(receiver)) == 2 * count - 1
            assert "recovered_count" in str(run(language, "recover-after-an-outage"))
            assert len(deliver(receiver)) == 2 * count
            assert "is_delivered" in str(run(language, "try-your-receiver"))
            sample = receiver.received("/sample")[count - 1]
            assert _by_stripe(None, sample.body, sample.headers["x-seedancee2-signature"], secret)
    assert {request.headers["x-seedancee2-delivery"] for request in receiver.received("/hook")} == {row.pk}
    assert (len(receiver.received("/hook")), len(receiver.received("/sample"))) == (6, 3)


def _ended() -> dict[str, Any]:
    return {"state": "abandoned", "due_at": None, "finished_at": clock.now()}
