"""The OpenAPI document: valid, complete, served unchanging, and of one mind with what it describes."""

import json
import os
import re

import jsonschema_rs
import openapi_spec_validator
import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver

from generations import catalog, openapi, requests
from generations.tests.callers import golden, minimal
from seedancee2.api import errors, schema

DOCUMENT = json.loads(schema.document())
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
EVERYWHERE = {"401", "403", "429", "500"}
LIMITS = {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}


def _walk(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _walk(child)


def _problems(subject, value):
    validator = jsonschema_rs.Draft202012Validator(
        {**subject, "components": DOCUMENT["components"]}, validate_formats=True
    )
    return [str(error) for error in validator.iter_errors(value)]


def test_it_is_valid_and_the_generator_has_nothing_to_complain_of():
    openapi_spec_validator.validate(DOCUMENT)
    call_command("spectacular", "--format=openapi-json", "--validate", "--fail-on-warn", f"--file={os.devnull}")
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["servers"] == [{"url": settings.PUBLIC_BASE_URL}]


def test_it_is_served_unchanging_to_everybody():
    first, again = (Client().get("/openapi.json") for _ in range(2))

    assert first.content == again.content == schema.document()
    assert first.headers["Content-Type"] == "application/json"
    assert first.headers["Cache-Control"] == "public, max-age=300"
    known = Client().get("/openapi.json", headers={"if-none-match": first.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


def test_every_reference_leads_somewhere():
    for node in _walk(DOCUMENT):
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            *way, name = node["$ref"].removeprefix("#/").split("/")
            assert way == ["components", "schemas"]
            assert name in DOCUMENT["components"]["schemas"]


def test_every_route_is_described():
    routes = {
        f"{method.upper()} /{route}".replace("<str:id>", "{id}")
        for route, method in _public_routes(get_resolver().url_patterns)
    }
    assert routes == set(OPERATIONS)


def _public_routes(patterns, prefix=""):
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _public_routes(pattern.url_patterns, route)
        elif route.startswith("v1/"):
            yield from ((route, method) for method in pattern.callback.actions if method != "head")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_is_told_in_full(operation):
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation["security"] == [{"bearer": []}, {"apiKey": []}]
    assert set(operation["responses"]) >= EVERYWHERE
    for parameter in operation.get("parameters", []):
        assert parameter["description"]
    for status, response in operation["responses"].items():
        assert response["description"]
        headers = response["headers"]
        assert headers["X-Request-Id"]["required"]
        assert set(headers) >= LIMITS or status == "401"
        assert ("WWW-Authenticate" in headers) == (status == "401")
        assert headers["Retry-After"]["required"] if status in ("409", "429") else True
        assert headers["ETag"]["required"] if status == "304" else "content" in response


def test_operations_have_names_for_methods_of_clients():
    assert [operation["operationId"] for operation in OPERATIONS.values()] == [
        "listModels",
        "getUsage",
        "listVideoTasks",
        "createVideoTask",
        "getVideoTask",
        "listWebhookDeliveries",
        "getWebhookDelivery",
        "redeliverWebhook",
        "recoverWebhooks",
        "sendTestWebhook",
    ]


def test_links_lead_from_a_task_to_getting_it():
    tasks = DOCUMENT["paths"]["/v1/videos/generations"]
    links = [tasks["post"]["responses"]["201"]["links"], tasks["get"]["responses"]["200"]["links"]]
    assert [link["getVideoTask"]["operationId"] for link in links] == ["getVideoTask"] * 2
    assert [link["getVideoTask"]["parameters"]["id"] for link in links] == [
        "$response.body#/data/id",
        "$response.body#/data/0/id",
    ]


def test_links_lead_from_deliveries_to_sending_them_again():
    listed = DOCUMENT["paths"]["/v1/webhooks/deliveries"]["get"]["responses"]["200"]["links"]
    found = DOCUMENT["paths"]["/v1/webhooks/deliveries/{id}"]["get"]["responses"]["200"]["links"]
    assert list(listed) == ["getWebhookDelivery", "redeliverWebhook"]
    assert found["redeliverWebhook"]["parameters"] == {"id": "$response.body#/data/id"}


def _media():
    operations = [*OPERATIONS.values(), *(path_item["post"] for path_item in DOCUMENT["webhooks"].values())]
    for operation in operations:
        for described in (operation.get("requestBody", {}), *operation["responses"].values()):
            yield from described.get("content", {}).values()


def test_every_body_has_examples_that_hold():
    for media in _media():
        assert media["examples"]
        for example in media["examples"].values():
            assert _problems(media["schema"], example["value"]) == []
    for operation in OPERATIONS.values():
        for parameter in operation.get("parameters", []):
            for example in parameter.get("examples", {}).values():
                assert _problems(parameter["schema"], example["value"]) == []


def test_the_examples_are_those_of_the_public_page():
    shown = [example["value"] for media in _media() for example in media["examples"].values()]
    for name in (
        "create_minimal_request",
        "create_full_request",
        "created",
        "processing",
        "completed",
        "failed",
        "models",
        "usage",
        "insufficient_credits",
    ):
        assert golden(name) in shown, name


def test_every_error_is_shown_but_that_of_methods_that_do_not_exist():
    shown = {
        (int(status), example["value"]["error"]["code"], example["value"]["error"]["type"])
        for operation in OPERATIONS.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
        for example in response["content"]["application/json"]["examples"].values()
    }
    known = {(kind.status, kind.code, kind.type) for kind in errors.PublicError.__subclasses__()}
    assert known - shown == {(405, "method_not_allowed", "invalid_request_error")}
    assert shown <= known


def test_a_task_is_told_apart_by_its_status():
    task = DOCUMENT["components"]["schemas"]["Task"]
    assert task["discriminator"]["propertyName"] == "status"
    mapping = task["discriminator"]["mapping"]
    assert list(mapping) == ["pending", "processing", "completed", "failed"]
    assert [{"$ref": reference} for reference in mapping.values()] == task["oneOf"]
    for status, reference in mapping.items():
        component = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
        assert component["properties"]["status"]["enum"] == [status]


@pytest.mark.django_db
def test_the_models_are_those_of_the_catalog():
    models = catalog.active_models()
    assert [model.name for model in models] == openapi.MODELS
    assert sorted(model.name for model in models if "1080p" not in model.resolutions) == openapi.MODELS_WITHOUT_1080P


def test_webhooks_carry_their_events_and_bodies():
    assert {
        event: path_item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for event, path_item in DOCUMENT["webhooks"].items()
    } == {
        "video.generation.completed": "CompletedTaskReply",
        "video.generation.failed": "FailedTaskReply",
    }
    for event, path_item in DOCUMENT["webhooks"].items():
        headers = {parameter["name"]: parameter for parameter in path_item["post"]["parameters"]}
        assert headers["X-Seedancee2-Event"]["schema"]["enum"] == [event]
        assert [name for name, header in headers.items() if header["required"]] == [
            "X-Seedancee2-Event",
            "X-Seedancee2-Delivery",
            "X-Seedancee2-Attempt",
        ]
        example = f"t=1770000000,v1={'0' * 64},v1={'f' * 64}"
        assert re.fullmatch(headers["X-Seedancee2-Signature"]["schema"]["pattern"], example)


_A, _B, _C = (f"https://example.com/{name}" for name in "abc")
_FRAMES = {"generation_type": "first_and_last_frames"}
_PAIR = {"start_image_url": _A, "end_image_url": _B}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prompt": " \n "},
        {"prompt": " a "},
        {"prompt": "a\u0000b"},
        {"prompt": "a" * 5001},
        {"prompt": None},
        {"duration": 3},
        {"duration": 5.0},
        {"duration": "5"},
        {"duration": True},
        {"duration": None},
        {"resolution": "1080p"},
        {"resolution": None},
        {"aspect_ratio": "2:1"},
        {"generate_audio": 1},
        {"seed": -1},
        {"seed": -2},
        {"seed": 2**53},
        {"image_urls": [_A] * 9},
        {"image_urls": [_A] * 10},
        {"image_urls": _A},
        {"image_urls": [None]},
        {"video_url": "ftp://example.com/a"},
        {"video_url": "HTTP://EXAMPLE.COM"},
        {"video_url": "https://user@example.com/a"},
        {"video_url": "https://example.com/a b"},
        {"video_url": f"https://example.com/{'a' * 8192}"},
        {"video_url": _A, "video_urls": []},
        {"video_url": _A, "video_urls": [_B]},
        {"video_url": None, "video_urls": [_B]},
        _PAIR,
        {"start_image_url": _A},
        {"start_image_url": None},
        _FRAMES,
        {**_FRAMES, **_PAIR},
        {**_FRAMES, **_PAIR, "image_urls": []},
        {**_FRAMES, **_PAIR, "image_urls": [_A, _B]},
        {**_FRAMES, **_PAIR, "video_url": _C},
        {**_FRAMES, **_PAIR, "video_urls": []},
        {**_FRAMES, **_PAIR, "audio_urls": [_C]},
        {**_FRAMES, "start_image_url": _A},
        {**_FRAMES, "end_image_url": _A, "start_image_url": None},
        {**_FRAMES, "image_urls": [_A, _B]},
        {**_FRAMES, "image_urls": [_A, _B], "start_image_url": None},
        {**_FRAMES, "image_urls": [_A]},
        {**_FRAMES, "image_urls": [_A, _B, _C]},
    ],
    ids=lambda values: json.dumps(values)[:80],
)
@pytest.mark.django_db
def test_the_schema_and_the_validator_agree(values):
    body = minimal(**values)
    subject = {"$ref": "#/components/schemas/CreateVideoTaskRequest"}
    # The parser refuses NUL before the validator is asked.
    is_accepted = not requests.read(body).problems and "\u0000" not in str(body)
    assert (_problems(subject, body) == []) == is_accepted
