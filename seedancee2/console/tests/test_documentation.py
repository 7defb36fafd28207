"""The customers' documentation says what the code does: every table is held against it, in both directions.

Each test is marked with the tables that it holds: the anchor of the heading and the place below it. A table that no
test holds fails the last test here. One fact has no code to be held against: the formats of reference images, which we
never open ("Input guidelines", the list below the table). `test_documentation_examples` runs the examples.
"""

import datetime as dt
import inspect
import re

import pytest
from django.conf import settings
from django.test import Client
from drf_spectacular.generators import SchemaGenerator

from billing.models import Rate
from generations import failures, idempotency, payloads, requests, usage, waiting
from generations import serializers as rules
from generations.models import Generation, OutputAsset, PublicModel
from generations.tests.callers import Caller, minimal
from generations.tests.factories import funded_organization
from providers.adapters import sandbox
from providers.adapters.base import Failed, JobRequest, Running, Succeeded
from providers.models import SandboxRun
from seedancee2.api import errors, fields, parsing
from seedancee2.console.tests.manual import SOURCE, Table, codes, numbers, tables
from seedancee2.lib import clock, destinations
from webhooks import deliveries, delivery, replies, samples, secrets, signing
from webhooks.models import Delivery
from webhooks.tests.factories import DeliveryFactory

TABLES = tables()
HELD: dict[tuple[str, int], str] = {}


def holds(*places):
    """Mark a test with the tables that it holds, and hand them to it as `table`, `second` and so on."""

    def mark(test):
        HELD.update(dict.fromkeys(places, test.__name__))
        found = [TABLES.get(place, Table([], [])) for place in places]
        names = ("table", "second", "third", "fourth")[: len(found)]
        return pytest.mark.parametrize(names, [tuple(found)], ids=[places[0][0]])(test)

    return mark


@holds(("seedancee2-api", 0))
@pytest.mark.django_db
def test_where_everything_is(table):
    paths = [path for _, where in table.rows for path in re.findall(r"\]\(([^)]+)\)", where)]

    assert paths == ["/docs/api", "/docs/api/try", "/openapi.json", "/docs.md", "/llms.txt"]
    assert [Client().get(path).status_code for path in paths] == [200] * 5


@holds(("models", 0))
@pytest.mark.django_db
def test_models(table):
    assert [(codes(name)[0], duration, resolutions) for name, _, duration, resolutions in table.rows] == [
        (model.name, f"{model.min_duration}-{model.max_duration}s", ", ".join(model.resolutions))
        for model in PublicModel.objects.filter(is_active=True).order_by("position")
    ]
    assert re.search(r"every aspect ratio: (.*)\.", SOURCE)[1] == ", ".join(
        f"`{ratio}`" for ratio in rules.ASPECT_RATIOS
    )


@holds(("credits", 0), ("credits", 1))
@pytest.mark.django_db
def test_rates_and_examples_of_prices(table, second):
    rates = {(rate.model, rate.resolution): rate.credits_per_second for rate in Rate.objects.order_by("effective_at")}
    shown = {
        (codes(row[0])[0], resolution): cell
        for row in table.rows
        for resolution, cell in zip(table.heads[1:], row[1:], strict=True)
    }

    assert table.heads[1:] == rules.RESOLUTIONS
    assert {key: cell for key, cell in shown.items() if cell != "Not supported"} == {
        key: f"{rate} credits/s" for key, rate in rates.items()
    }
    assert len(second.rows) == 4
    for scenario, price in second.rows:
        _, seconds, resolution = scenario.split(", ")[:3]
        assert int(price) == rates[codes(scenario)[0], resolution] * int(seconds.removesuffix("s"))


@holds(("task-lifecycle", 0), ("task-lifecycle", 1))
def test_statuses_and_the_fields_that_they_show(table, second):
    present = {}
    for status in Generation.Status.values:
        for refunded in (0, 20):
            task = Generation(
                public_id="vid_1",
                model="pro",
                status=status,
                credits=20,
                credits_refunded=20 if status == "failed" else refunded,
                created_at=clock.now(),
                finished_at=clock.now(),
                metadata={},
            )
            for name in payloads.task(task, []):
                present.setdefault(name, {}).setdefault(status, set()).add(refunded)

    assert list(table.by_code()) == Generation.Status.values
    assert {name: "always" if len(found) == 4 else sorted(found) for name, found in present.items()} == {
        name: sorted(codes(when)) or when for name, (when, _) in second.by_code().items()
    }
    assert present["credits_refunded"]["completed"] == {20}, "only after a refund"
    assert f"after {settings.TASK_DEADLINE_SECONDS // 60} minutes fails with `generation_timeout`" in SOURCE


_TYPES = {
    fields.StrictChar: "string",
    fields.PublicURL: "string",
    fields.StrictChoice: "string",
    fields.StrictInteger: "integer",
    fields.StrictBoolean: "boolean",
    fields.StrictList: "string[]",
    rules.InputSerializer: "object",
}


def _described(field) -> tuple[str, str]:
    return _TYPES.get(type(field), "object"), "Yes" if field.required else "No"


@holds(("create-a-video-task", 0), ("create-a-video-task", 1))
def test_request_fields(table, second):
    inputs = rules.InputSerializer().fields
    shown = {
        name: f"`{str(field.default).lower()}`" if "default" in field._kwargs else "–" for name, field in inputs.items()
    }

    assert [(name, (kind, required)) for name, (kind, required, _) in table.by_code().items()] == [
        (name, _described(field)) for name, field in rules.CreateSerializer().fields.items()
    ]
    assert [(name, (kind, required), default) for name, (kind, required, default, _) in second.by_code().items()] == [
        (name, _described(field), shown[name]) for name, field in inputs.items()
    ]
    described = {name: cells[-1] for name, cells in second.by_code().items()}
    assert codes(described["generation_type"]) == rules.GENERATION_TYPES
    assert codes(described["resolution"]) == rules.RESOLUTIONS
    assert codes(described["aspect_ratio"]) == rules.ASPECT_RATIOS
    assert numbers(described["duration"]) == [rules.MIN_DURATION, rules.MAX_DURATION]
    assert numbers(described["seed"]) == [rules.NO_SEED]


@holds(("safe-retries", 0))
def test_idempotency_keys(table):
    assert [(numbers(reply)[:1], codes(reply)[:1]) for _, reply in table.rows[:-1]] == [
        ([], [f"{idempotency.REPLAYED_HEADER}: true"]),
        ([errors.IdempotencyKeyReused.status], [errors.IdempotencyKeyReused.code]),
        ([errors.IdempotencyKeyInUse.status], [errors.IdempotencyKeyInUse.code]),
    ]
    assert f"Keys are kept for {idempotency.KEPT_FOR // dt.timedelta(hours=1)} hours." in SOURCE


@holds(("strictness", 0))
@pytest.mark.django_db
def test_near_misses_and_ignored_fields(table):
    for path, (happens,) in table.by_code().items():
        body = minimal()
        place, _, key = path.rpartition(".")
        (body["input"] if place else body)[key] = 5
        read = requests.read(body)
        if happens.startswith("400"):
            assert codes(happens) == list(read.problems)
        else:
            assert (codes(happens), read.ignored) == (["X-Seedancee2-Ignored-Fields"], (path,))


@holds(("get-a-video-task", 0))
def test_output_fields(table):
    assert list(table.by_code()) == list(payloads._URL_NAMES.values())
    assert set(payloads._URL_NAMES) == set(OutputAsset.Kind)


@holds(
    ("waiting-instead-of-asking-often", 0),
    ("list-video-tasks", 0),
    ("usage-summary", 0),
    ("see-what-became-of-a-webhook", 0),
)
def test_query_parameters(table, second, third, fourth):
    drawn = SchemaGenerator().get_schema(request=None, public=True)

    def resolved(schema):
        return drawn["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema

    for shown, path in (
        (table, "/v1/videos/generations/{id}"),
        (second, "/v1/videos/generations"),
        (third, "/v1/usage"),
        (fourth, "/v1/webhooks/deliveries"),
    ):
        rows = shown.by_code()
        parameters = drawn["paths"][path]["get"]["parameters"]
        schemas = {one["name"]: resolved(one["schema"]) for one in parameters if one["in"] == "query"}
        assert {name: kind for name, (kind, _) in rows.items()} == {name: one["type"] for name, one in schemas.items()}
        for name, schema in schemas.items():
            limits = [schema[word] for word in ("minimum", "maximum", "default") if word in schema]
            assert [number for number in numbers(rows[name][1]) if number != 8601] == limits
            assert not schema.get("enum") or set(codes(rows[name][1])) == set(schema["enum"])
    assert f"?wait={waiting.MAX_WAIT}" in SOURCE


@holds(("usage-summary", 1))
def test_usage_fields(table):
    assert list(table.by_code()) == list(usage.Sums().as_json())


@holds(("webhooks", 0), ("webhooks", 1))
@pytest.mark.django_db
def test_events_and_their_headers(table, second):
    row = DeliveryFactory.create()
    headers = delivery._headers(row, timestamp=1_770_000_000)
    shown = {name: codes(example)[0] for name, (example, _) in second.by_code().items()}

    assert list(table.by_code()) == Delivery.Event.values
    assert list(shown) == list(headers)
    for name in ("Content-Type", "User-Agent", "X-Seedancee2-Event", "X-Seedancee2-Attempt"):
        assert shown[name] == headers[name]
    assert len(shown["X-Seedancee2-Delivery"]) == len(headers["X-Seedancee2-Delivery"])
    assert re.match(r"t=1770000000,v1=[0-9a-f]+…$", shown["X-Seedancee2-Signature"])
    assert headers["X-Seedancee2-Signature"].startswith("t=1770000000,v1=")
    overlap = inspect.signature(secrets.rotate).parameters["overlap_seconds"].default
    assert f"beside the new one for {overlap // 3600} hours" in SOURCE


@holds(("what-counts-as-delivered", 0), ("what-counts-as-delivered", 1))
def test_delivery(table, second):
    units = {"second": 1, "minute": 60, "hour": 3600}

    def seconds(cell):
        number, unit = cell.split()
        return int(number) * units[unit.removesuffix("s")]

    answers = [answer for answer, _ in table.rows]
    assert numbers(answers[0]) == [2, delivery.DEADLINE_SECONDS]
    assert answers[0].startswith("any 2xx")
    assert all(delivery.Outcome(status_code=code).is_success is (code < 300) for code in (200, 204, 299, 300, 302, 410))
    assert answers[1] == "410"
    assert delivery.next_due_at(attempt_count=1, outcome=delivery.Outcome(status_code=410)) is None
    for code in numbers(answers[3]):
        now = clock.now()
        asked = delivery.Outcome(status_code=code, retry_after="1000")
        assert delivery.next_due_at(attempt_count=1, outcome=asked) > now + dt.timedelta(seconds=999)
        greedy = delivery.Outcome(status_code=code, retry_after="999999")
        assert delivery.next_due_at(attempt_count=1, outcome=greedy) < now + dt.timedelta(seconds=3700)

    schedule = delivery.SCHEDULE
    assert [int(row[0]) for row in second.rows] == list(range(1, len(schedule) + 1))
    assert second.rows[0][1:] == ["at once", "–"]
    assert [seconds(wait) for _, wait, _ in second.rows[1:]] == list(schedule[1:])
    for index, (_, _, total) in enumerate(second.rows[1:], start=2):
        unit = units[total.split()[1].removesuffix("s")]
        assert seconds(total) == sum(schedule[:index]) // unit * unit
    said = re.search(r"up to (\d+) in all over at least (\d+) hours.* up to (\d+)%", SOURCE, re.DOTALL)
    assert [int(number) for number in said.groups()] == [len(schedule), 72, delivery.JITTER * 100]
    assert sum(schedule) >= 72 * 3600


@holds(("webhooks-in-practice", 0), ("see-what-became-of-a-webhook", 1))
@pytest.mark.django_db
def test_deliveries_and_what_can_be_done_about_them(table, second):
    drawn = SchemaGenerator().get_schema(request=None, public=True)

    assert {codes(request)[0] for request, _ in table.rows} == {
        f"{method.upper()} {path}"
        for path, operations in drawn["paths"].items()
        if path.startswith("/v1/webhooks")
        for method in operations
    }
    rows = second.by_code()
    assert list(rows) == list(replies.delivery(DeliveryFactory.create()))
    assert codes(rows["state"][0]) == replies.DELIVERY_STATES
    for sentence in (
        f"{['None', 'One', 'Two'][samples.MAX_AT_ONCE]} can be under way at once.",
        f"The last {deliveries.ATTEMPTS_SHOWN} attempts are shown.",
        f"has had {deliveries.MAX_ATTEMPTS} attempts",
        f"A body is kept for {deliveries.KEPT_FOR.days} days",
        f"up to {deliveries.KEPT_FOR.days} days back",
        f"opens up to {deliveries.MAX_RECOVERED:,}",
        f"begins anew, with {len(delivery.SCHEDULE)} attempts",
    ):
        assert sentence in " ".join(SOURCE.split())
    # The last of the choices stands behind "or".
    choices = " or ".join(", ".join(signing.OVERLAPS.values()).rsplit(", ", 1))
    assert f"signs beside the new one: {choices}." in " ".join(SOURCE.split())


@holds(("input-guidelines", 0))
def test_limits(table):
    inputs = rules.InputSerializer().fields
    assert {name: numbers(limit) for name, (limit,) in _first_words(table).items()} == {
        "prompt": [1, rules.MAX_PROMPT_LENGTH],
        "image_urls": [rules.MAX_IMAGES, 2],
        "video_url": [1],
        "video_urls": [rules.MAX_VIDEOS],
        "audio_urls": [rules.MAX_AUDIOS],
        "duration": [rules.MIN_DURATION, rules.MAX_DURATION],
        "seed": [rules.NO_SEED, rules.MAX_SEED],
        "Each URL": [destinations.MAX_URL_LENGTH],
        "metadata": [rules.MAX_METADATA_KEYS, rules.MAX_METADATA_BYTES // 1024, rules.MAX_METADATA_DEPTH],
        "Idempotency-Key": [1, 255],
        "Request body": [settings.API_MAX_BODY_BYTES // 1024, parsing.MAX_DEPTH],
    }
    assert [inputs[name].max_length for name in ("prompt", "image_urls", "video_urls", "audio_urls")] == [
        rules.MAX_PROMPT_LENGTH,
        rules.MAX_IMAGES,
        rules.MAX_VIDEOS,
        rules.MAX_AUDIOS,
    ]
    assert (inputs["duration"].minimum, inputs["duration"].maximum) == (rules.MIN_DURATION, rules.MAX_DURATION)
    assert (inputs["seed"].minimum, inputs["seed"].maximum) == (rules.NO_SEED, rules.MAX_SEED)
    assert [bool(idempotency._KEY.fullmatch("k" * length)) for length in (0, 1, 255, 256)] == [False, True, True, False]


def _first_words(table: Table) -> dict[str, list[str]]:
    return {row[0].strip("`"): row[1:] for row in table.rows}


def _all_errors() -> list[type[errors.PublicError]]:
    found, waiting_ones = [], [errors.PublicError]
    while waiting_ones:
        kinds = waiting_ones.pop().__subclasses__()
        found += kinds
        waiting_ones += kinds
    return [kind for kind in found if kind.__module__ == errors.__name__]


@holds(("errors", 0))
def test_error_codes(table):
    shown = [(int(status), codes(code)[0], codes(kind)[0]) for status, code, kind, _ in table.rows]

    assert len(set(shown)) == len(shown)
    assert set(shown) == {(kind.status, kind.code, kind.type) for kind in _all_errors()}
    assert [status for status, _, _ in shown] == sorted(status for status, _, _ in shown)


@holds(("failed-tasks", 0))
def test_codes_of_failed_tasks(table):
    assert {code: message for code, (message, _) in table.by_code().items()} == failures.MESSAGES
    assert list(table.by_code()) == Generation.ErrorCode.values


@holds(("rate-limits", 0))
def test_rate_limits(table):
    assert [(name, *numbers(limit)) for name, limit in table.rows] == [
        ("Creating tasks", settings.RATE_LIMIT_CREATES),
        ("Everything else", settings.RATE_LIMIT_REQUESTS),
    ]


# Headers of any web server; all others that we send are told to customers.
_USUAL = {
    *("Content-Type", "Content-Length", "Cache-Control", "Vary", "X-Frame-Options", "X-Content-Type-Options"),
    *("Referrer-Policy", "Cross-Origin-Opener-Policy", "Strict-Transport-Security"),
}


@holds(("response-headers", 0))
@pytest.mark.django_db
def test_response_headers(table):
    caller = Caller(funded_organization())
    created = caller.create(minimal(camera_style="low"), idempotency_key="job_123")
    replies = [
        created,
        caller.create(minimal(camera_style="low"), idempotency_key="job_123"),
        caller.create(minimal()),
        caller.get(f"/v1/videos/generations/{created.json()['data']['id']}"),
        caller.get("/v1/videos/generations?limit=1"),
        Client().get("/v1/models"),
        caller._http.delete("/v1/models"),
    ]

    assert set(table.by_code()) == {name for reply in replies for name in reply.headers} - _USUAL
    assert all("X-Request-Id" in reply.headers for reply in replies)


@holds(("test-keys-and-the-sandbox", 0))
def test_sandbox_directives(table):
    shown = {codes(directive)[0]: (codes(outcome) or [""])[0] for directive, outcome in table.rows}

    assert {re.sub(r"=.*\]", "=SECONDS]", directive) for directive in shown} == set(
        re.findall(r"\[sandbox:[^]]+\]", sandbox.__doc__)
    )
    assert {directive[9:-1] for directive in shown} - {"delay=30", "stuck"} == set(sandbox._FAILURES)
    for directive, code in shown.items():
        usual, late = (_sandbox_outcome(directive, seconds) for seconds in (sandbox.RUN_SECONDS, 100_000))
        match usual, late:
            case (Failed() as failed, _):
                assert failures.code_for(failed.error_class) == code
            case (Running(), Running()):
                assert (directive, code) == ("[sandbox:stuck]", "generation_timeout")
            case (Running(), Succeeded()):
                assert directive == "[sandbox:delay=30]"
                assert isinstance(_sandbox_outcome(directive, sandbox.RUN_SECONDS + 29), Running)
                assert isinstance(_sandbox_outcome(directive, sandbox.RUN_SECONDS + 31), Succeeded)
            case other:
                pytest.fail(f"{directive}: {other}")


def _sandbox_outcome(directive: str, age: float):
    request = JobRequest(
        model="mini",
        prompt=f"waves {directive}",
        duration=5,
        resolution="720p",
        aspect_ratio="16:9",
        generate_audio=True,
        watermark=False,
        return_last_frame=False,
    )
    created_at = clock.now() - dt.timedelta(seconds=age)
    return sandbox._progress(SandboxRun(run_id="sbx_1", request=request.as_json(), created_at=created_at))


def test_every_table_is_held_by_a_test():
    assert set(HELD) == set(TABLES)
    assert all(callable(globals()[name]) for name in HELD.values())
