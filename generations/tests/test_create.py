"""POST /v1/videos/generations."""

import datetime as dt
import json
from typing import Any, cast

import pytest
import time_machine
from pytest_django import DjangoAssertNumQueries

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory
from billing import ledger
from generations.models import Generation, ModelAlias, PublicModel
from generations.tests.callers import Caller, golden, minimal
from generations.tests.factories import funded_organization
from providers.models import UpstreamJob
from seedancee2.lib import ids

URL = "https://example-cdn.com/a.png"


@pytest.fixture
def page_clock() -> Any:
    """The moment of the page's examples."""
    with time_machine.travel(dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC), tick=False):
        yield


def test_full_example_is_answered_as_on_the_page(
    customer: Caller, page_clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "new", lambda prefix: f"{prefix}_01jz8b7q4x8k2p9w3m5c6n7r8s")

    response = customer.create(golden("create_full_request"))

    assert response.status_code == 201
    assert response.content.decode() == json.dumps(golden("created"), separators=(",", ":"))
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Location"] == "/v1/videos/generations/vid_01jz8b7q4x8k2p9w3m5c6n7r8s"
    assert response.headers["X-Request-Id"].startswith("req_")
    assert "X-Seedancee2-Ignored-Fields" not in response.headers
    assert ledger.balance(organization_id=customer.organization.pk) == (900, 100)
    row = Generation.objects.get()
    assert (row.model, row.status, row.rate, row.credits) == ("pro", "pending", 20, 100)
    assert row.callback_url == "https://example.com/webhooks/seedancee2"
    assert row.metadata == {"customer_job_id": "job_123", "campaign": "launch_week"}
    assert row.organization_id == customer.organization.pk
    assert UpstreamJob.objects.get().reference == row.public_id


def test_minimal_example_costs_50_and_is_stored_with_every_default(customer: Caller) -> None:
    response = customer.create(golden("create_minimal_request"))

    assert response.json()["data"]["credits_reserved"] == 50
    assert Generation.objects.get().input == {
        "prompt": "A cinematic drone shot of waves breaking against black volcanic rocks",
        "generation_type": "omni_reference",
        "image_urls": [],
        "video_urls": [],
        "audio_urls": [],
        "start_image_url": None,
        "end_image_url": None,
        "duration": 5,
        "resolution": "720p",
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "watermark": False,
        "seed": None,
        "return_last_frame": False,
    }


@pytest.mark.parametrize("example", golden("prices"), ids=lambda row: f"{row['model']}-{row['credits']}")
def test_prices_are_those_of_the_page(customer: Caller, example: dict[str, Any]) -> None:
    body = {
        "model": example["model"],
        "input": {
            "prompt": "waves",
            "duration": example["duration"],
            "resolution": example["resolution"],
            "image_urls": [URL] * example.get("references", 0),
        },
    }

    response = customer.create(body)

    assert response.json()["data"]["credits_reserved"] == example["credits"]
    assert ledger.balance(organization_id=customer.organization.pk) == (1000 - example["credits"], example["credits"])


def test_only_a_prompt_and_a_model_are_needed(customer: Caller) -> None:
    response = customer.create({"model": "mini", "input": {"prompt": "  waves\n"}})

    assert response.json()["data"]["credits_reserved"] == 50
    row = Generation.objects.get()
    assert (row.input["prompt"], row.input["aspect_ratio"], row.metadata) == ("waves", "adaptive", {})


def test_null_means_absent_for_every_optional_field(customer: Caller) -> None:
    optional = golden_fields() - {"prompt"}
    body = {
        "model": "mini",
        "input": {"prompt": "waves", **dict.fromkeys(optional)},
        "callback_url": None,
        "metadata": None,
    }

    assert customer.create(body).status_code == 201
    row = Generation.objects.get()
    assert (row.input["duration"], row.input["resolution"], row.input["generate_audio"]) == (5, "720p", True)
    assert (row.callback_url, row.metadata) == ("", {})


def golden_fields() -> set[str]:
    """Return the names of the page's input fields."""
    return {
        *("prompt", "generation_type", "image_urls", "video_url", "video_urls", "audio_urls", "start_image_url"),
        *("end_image_url", "duration", "resolution", "aspect_ratio", "generate_audio", "watermark", "seed"),
        "return_last_frame",
    }


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("duration", 5.0, 5),
        ("duration", 15, 15),
        ("seed", -1, -1),
        ("seed", 2**53 - 1, 2**53 - 1),
        ("prompt", "x" * 5000, "x" * 5000),
        ("prompt", " " + "😀" * 5000, "😀" * 5000),
        ("image_urls", [URL] * 9, [URL] * 9),
        ("video_urls", [URL] * 3, [URL] * 3),
        ("audio_urls", [URL] * 3, [URL] * 3),
        ("aspect_ratio", "21:9", "21:9"),
        ("watermark", True, True),
    ],
)
def test_values_at_the_limits_are_taken(customer: Caller, field: str, value: Any, stored: Any) -> None:
    assert customer.create(minimal(**{field: value})).status_code == 201

    assert Generation.objects.get().input[field] == stored


def test_single_video_url_becomes_the_only_one(customer: Caller) -> None:
    assert customer.create(minimal(video_url="https://example-cdn.com/a.mp4")).status_code == 201

    assert Generation.objects.get().input["video_urls"] == ["https://example-cdn.com/a.mp4"]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("prompt", 123, "must be a string."),
        ("prompt", "", "must not be empty."),
        ("prompt", " \n\t ", "must not be empty."),
        ("prompt", None, "is required."),
        ("prompt", "x" * 5001, "must not be longer than 5000 characters."),
        ("generation_type", "text", "must be one of omni_reference, first_and_last_frames."),
        ("image_urls", URL, "must be a list."),
        ("image_urls", [URL] * 10, "must not hold more than 9 items."),
        ("video_url", "example.com/a.mp4", "must be an absolute http or https URL."),
        ("video_url", "ftp://example.com/a.mp4", "must be an absolute http or https URL."),
        ("video_url", "http://localhost/a.mp4", "must not point to a private address."),
        ("video_url", "http://10.0.0.1/a.mp4", "must not point to a private address."),
        ("video_url", "https://u:p@example.com/", "must not contain a user name or password."),
        ("video_url", ["https://example.com"], "must be a string."),
        ("video_urls", [URL] * 4, "must not hold more than 3 items."),
        ("audio_urls", [URL] * 4, "must not hold more than 3 items."),
        ("duration", 3, "must be between 4 and 15."),
        ("duration", 16, "must be between 4 and 15."),
        ("duration", "5", "must be an integer."),
        ("duration", True, "must be an integer."),
        ("duration", 5.5, "must be an integer."),
        ("duration", [5], "must be an integer."),
        ("resolution", "4k", "must be one of 480p, 720p, 1080p."),
        ("resolution", 720, "must be one of 480p, 720p, 1080p."),
        ("resolution", "1080p", "must be one of 480p, 720p for the model mini."),
        ("aspect_ratio", "2:1", "must be one of 16:9, 4:3, 1:1, 3:4, 9:16, 21:9, adaptive."),
        ("generate_audio", 1, "must be true or false."),
        ("generate_audio", "true", "must be true or false."),
        ("watermark", 0, "must be true or false."),
        ("seed", -2, "must be between -1 and 9007199254740991."),
        ("seed", "5", "must be an integer."),
        ("seed", 1.5, "must be an integer."),
        ("return_last_frame", {}, "must be true or false."),
    ],
)
def test_wrong_values_are_refused_by_name(customer: Caller, field: str, value: Any, sentence: str) -> None:
    assert customer.refused(minimal(**{field: value})) == f"input.{field} {sentence}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "model is required. input is required."),
        ({"model": None, "input": None}, "model is required. input is required."),
        ({"model": 1, "input": []}, "model must be a string. input must be an object."),
        ({"input": {"prompt": "waves"}}, "model is required."),
        ({"model": "mini", "input": {}}, "input.prompt is required."),
        ({**minimal(), "callback_url": ""}, "callback_url must not be empty."),
        ({**minimal(), "callback_url": "http://127.0.0.1:9/"}, "callback_url must not point to a private address."),
        ({**minimal(), "metadata": []}, "metadata must be an object."),
        ({**minimal(), "metadata": {str(n): n for n in range(51)}}, "metadata must not have more than 50 keys."),
        ({**minimal(), "metadata": {"a": "x" * 16384}}, "metadata must not be larger than 16 KiB as JSON."),
        (
            {**minimal(), "metadata": {"1": {"2": {"3": {"4": {"5": []}}}}}},
            "metadata must not be nested more than 5 levels deep.",
        ),
        ([], "The request body must be a JSON object."),
        ('"text"', "The request body must be a JSON object."),
    ],
)
def test_wrong_tops_are_refused(customer: Caller, body: Any, message: str) -> None:
    assert customer.refused(body) == message


def test_all_problems_are_told_at_once_in_the_order_of_the_page(customer: Caller) -> None:
    body = {
        "metadata": 1,
        "callback_url": "nowhere",
        "input": {"watermark": "no", "durration": 7, "image_urls": [URL, 5, "x"], "resolution": "4k"},
    }

    assert customer.refused(body) == (
        "model is required. input.prompt is required. input.image_urls[1] must be a string."
        " input.image_urls[2] must be an absolute http or https URL."
        " input.durration is not a field; did you mean input.duration?"
        " input.resolution must be one of 480p, 720p, 1080p."
        " input.watermark must be true or false. callback_url must be an absolute http or https URL."
        " metadata must be an object."
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("aspectRatio", "input.aspect_ratio"),
        ("aspect-ratio", "input.aspect_ratio"),
        ("image_url", "input.image_urls"),
        ("imageUrls", "input.image_urls"),
        ("audio_url", "input.audio_urls"),
        ("durration", "input.duration"),
        ("Duration", "input.duration"),
        ("resolutoin", "input.resolution"),
        ("promt", "input.prompt"),
        ("seeds", "input.seed"),
        ("start_image_urls", "input.start_image_url"),
        ("callbackUrl", "callback_url"),
    ],
)
def test_typing_errors_in_input_are_refused_with_the_right_name(customer: Caller, name: str, meant: str) -> None:
    assert customer.refused(minimal(**{name: None})) == f"input.{name} is not a field; did you mean {meant}?"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("callbackUrl", "callbackUrl is not a field; did you mean callback_url?"),
        ("meta_data", "meta_data is not a field; did you mean metadata?"),
        ("aspectRatio", "aspectRatio is not a field; did you mean input.aspect_ratio?"),
        ("prompt", "prompt belongs inside input: send it as input.prompt."),
        ("duration", "duration belongs inside input: send it as input.duration."),
    ],
)
def test_typing_errors_and_misplaced_fields_at_the_top_are_refused(customer: Caller, key: str, message: str) -> None:
    assert customer.refused({**minimal(), key: "x"}) == message


def test_fields_of_the_top_are_refused_inside_input(customer: Caller) -> None:
    message = customer.refused(minimal(callback_url="https://example.com/"))

    assert message == (
        "input.callback_url belongs at the top of the request, not inside input: send it as callback_url."
    )


def test_unknown_keys_are_ignored_and_named_in_a_header(customer: Caller) -> None:
    body = {
        **minimal(speed="fast", foo={"bar": 1}),
        "provider": "x",
        "ключ\r\n": 1,
        "status": "completed",
        "credits": 0,
    }

    response = customer.create(body)

    assert response.status_code == 201
    assert response.headers["X-Seedancee2-Ignored-Fields"] == (
        "provider, %D0%BA%D0%BB%D1%8E%D1%87%0D%0A, status, credits, input.speed, input.foo"
    )
    assert "foo" not in Generation.objects.get().input


def test_header_of_ignored_keys_is_capped(customer: Caller) -> None:
    response = customer.create({**minimal(), **{f"zzz{n}": n for n in range(300)}})

    assert response.status_code == 201
    assert response.headers["X-Seedancee2-Ignored-Fields"].endswith("zzz19, +280 more")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"video_url": URL, "video_urls": [URL]},
            "input.video_urls must not be sent together with input.video_url.",
        ),
        (
            {"start_image_url": URL},
            "input.start_image_url is only for first_and_last_frames: set input.generation_type to that,"
            " or use image_urls.",
        ),
        (
            {"generation_type": "first_and_last_frames"},
            "input.start_image_url and input.end_image_url are required for first_and_last_frames,"
            " or two images in input.image_urls.",
        ),
        (
            {"generation_type": "first_and_last_frames", "start_image_url": URL},
            "input.end_image_url is required together with input.start_image_url.",
        ),
        (
            {"generation_type": "first_and_last_frames", "image_urls": [URL] * 3},
            "input.image_urls must hold exactly 2 images for first_and_last_frames: the first and the last frame.",
        ),
        (
            {"generation_type": "first_and_last_frames", "image_urls": [URL] * 2, "end_image_url": URL},
            "input.image_urls must not be sent together with input.start_image_url or input.end_image_url.",
        ),
        (
            {"video_url": URL, "video_urls": ["x"]},
            "input.video_urls[0] must be an absolute http or https URL."
            " input.video_urls must not be sent together with input.video_url.",
        ),
        (
            {
                "generation_type": "first_and_last_frames",
                "image_urls": [URL] * 2,
                "video_urls": [URL],
                "audio_urls": [URL],
            },
            "input.video_urls is not allowed with first_and_last_frames."
            " input.audio_urls is not allowed with first_and_last_frames.",
        ),
    ],
)
def test_references_that_do_not_go_together_are_refused(customer: Caller, values: dict[str, Any], message: str) -> None:
    assert customer.refused(minimal(**values)) == message


@pytest.mark.parametrize(
    "values", [{"start_image_url": URL, "end_image_url": URL}, {"image_urls": [URL, URL], "video_urls": []}]
)
def test_two_frames_are_taken_either_way(customer: Caller, values: dict[str, Any]) -> None:
    response = customer.create(minimal(generation_type="first_and_last_frames", **values))

    assert response.status_code == 201
    request = UpstreamJob.objects.get().request
    assert (request["first_frame_url"], request["last_frame_url"]) == (URL, URL)


@pytest.mark.parametrize("model", ["nano", "", "Pro", " pro", "x" * 300, "seedance\u2028"])
def test_unknown_model_is_404(customer: Caller, model: str) -> None:
    before = customer.holdings()

    response = customer.create({**minimal(resolution="1080p"), "model": model})

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert customer.holdings() == before


def test_inactive_model_is_404_but_a_bad_request_for_it_is_400(customer: Caller) -> None:
    PublicModel.objects.filter(name="mini").update(is_active=False)

    assert customer.create(minimal()).status_code == 404
    assert customer.refused(minimal(duration=99)) == "input.duration must be between 4 and 15."


def test_old_name_of_a_model_is_understood_and_answered_with_the_public_one(customer: Caller) -> None:
    ModelAlias.objects.create(alias="seedance-lite", model_id="mini")

    response = customer.create({**minimal(), "model": "seedance-lite"})

    assert response.json()["data"]["model"] == "mini"
    assert Generation.objects.get().model == "mini"


def test_too_few_credits_are_402_after_everything_else(db: None) -> None:
    poor = Caller(funded_organization(19))

    response = poor.create(minimal())

    assert response.status_code == 402
    assert response.json() == golden("insufficient_credits")
    assert Generation.objects.count() == 0
    assert UpstreamJob.objects.count() == 0
    assert ledger.balance(organization_id=poor.organization.pk) == (19, 0)
    assert poor.create({**minimal(), "model": "nano"}).status_code == 404
    assert poor.create(minimal(duration=1)).status_code == 400


def test_credits_of_another_organization_are_not_touched(customer: Caller, stranger: Caller) -> None:
    assert customer.create(minimal()).status_code == 201

    assert ledger.balance(organization_id=stranger.organization.pk) == (1000, 0)
    assert ledger.balance(organization_id=customer.organization.pk) == (980, 20)


def test_test_key_shows_the_price_and_moves_nothing(db: None) -> None:
    organization = cast(Organization, OrganizationFactory())
    caller = Caller(organization, "test")

    response = caller.create(minimal())

    assert response.status_code == 201
    assert response.json()["data"]["credits_reserved"] == 20
    assert Generation.objects.get().is_test
    assert ledger.balance(organization_id=organization.pk) == (0, 0)


def test_metadata_is_echoed_equal_as_json(customer: Caller) -> None:
    metadata = {"π": [1, -0.5, 1e20, True, None, {"": "😀\u2028"}], "n": 2**53 - 1, "big": 1e300, "a" * 500: ""}

    created = customer.create({**minimal(), "metadata": metadata}).json()["data"]

    echoed = customer.get(f"/v1/videos/generations/{created['id']}").json()["data"]["metadata"]
    assert json.loads(json.dumps(echoed), parse_int=float) == json.loads(json.dumps(metadata), parse_int=float)


def test_create_is_a_handful_of_statements(
    customer: Caller, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    customer.create(minimal())

    with django_assert_max_num_queries(12):
        customer.create(minimal())
