"""The playground: the form that a model allows, what it costs, the one task that comes of it, and who may make it."""

import html
import json
import re
import threading
import uuid

import pytest
import time_machine
from django.core.cache import cache
from django.db import connections

from accounts import keys, organizations
from accounts.models import ApiKey, AuditEntry
from accounts.tests.factories import OrganizationFactory, issue_key
from billing import ledger
from billing.models import KeyAllowance, LedgerEntry, Rate
from generations import lifecycle, requests
from generations.models import Generation, PublicModel
from generations.tests.callers import TASKS, Caller
from generations.tests.factories import create_generation, funded_organization
from generations.tests.people import Person, Role
from providers.models import UpstreamJob
from seedancee2.lib import clock
from tests.web import complete

pytestmark = pytest.mark.django_db

PAGE = "/console/playground/"
TOKEN = "0123456789abcdef" * 2
HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def person(settings) -> Person:
    """A developer of an organization with 1,000 credits."""
    settings.MEDIA_BASE_URL = "https://media.example.com"
    return Person(funded_organization(), Role.DEVELOPER)


def form(**values) -> dict[str, str]:
    """Return what a browser sends: by default `mini`, 4 s, 480p, in test mode."""
    sent = {
        "do": "send",
        "token": TOKEN,
        "mode": "test",
        "model": "mini",
        "prompt": "waves",
        "duration": "4",
        "resolution": "480p",
        "aspect_ratio": "adaptive",
        "generation_type": "omni_reference",
        "generate_audio": "on",
        "image_urls": "",
        "video_urls": "",
        "audio_urls": "",
        "start_image_url": "",
        "end_image_url": "",
        "seed": "",
        "callback_url": "",
        "metadata": "",
        **values,
    }
    return {name: value for name, value in sent.items() if value is not None}


def resolutions(page: str) -> list[str]:
    (select,) = re.findall(r'<select name="resolution".*?</select>', page, re.DOTALL)
    return re.findall(r'value="([^"]+)"', select)


def test_the_form_begins_in_test_mode_with_the_defaults_of_the_api(person):
    page = person.read(PAGE)

    assert re.search(r'name="mode" value="test"[^>]*checked', page)
    assert resolutions(page) == ["480p", "720p"]
    assert 'min="4" max="15"' in page
    context = person.get(PAGE).context
    body = context["form"].body()
    assert body == {
        "model": "mini",
        "input": {"prompt": "", "duration": 5, "resolution": "720p", "aspect_ratio": "adaptive"},
    }
    assert context["price"] == (50, 10, 5)
    assert "Free" in page


def test_a_model_shows_its_own_limits(person):
    PublicModel.objects.filter(name="pro").update(min_duration=6, max_duration=8)
    page = person.send(PAGE, form(do="apply", model="pro", duration="4", resolution="1080p")).content.decode()

    assert resolutions(page) == ["480p", "720p", "1080p"]
    assert 'min="6" max="8"' in page
    assert "6 to 8 seconds" in page
    assert 'name="duration" value="6"' in page
    assert not Generation.objects.exists()


def test_changing_the_model_swaps_the_limits_and_the_preview_alone(person):
    headers = {"hx-request": "true", "hx-target": "limits"}
    part = person.send(PAGE, form(do="apply", model="mini", resolution="1080p"), **headers).content.decode()
    assert part.lstrip().startswith('<div class="fields" id="limits">')
    assert 'id="preview"' in part
    assert 'hx-swap-oob="true"' in part
    assert "<form" not in part
    assert '<option value="720p" selected>' in part

    part = person.send(PAGE, form(do="apply"), **{"hx-request": "true", "hx-target": "preview"}).content.decode()
    assert 'id="limits"' not in part
    assert "hx-swap-oob" not in part
    assert not Generation.objects.exists()


@pytest.mark.parametrize(
    ("values", "price"),
    [
        ({}, (20, 5, 4)),
        ({"model": "pro", "resolution": "1080p", "duration": "15"}, (750, 50, 15)),
        ({"duration": "3"}, (20, 5, 4)),  # applied, it is what the model can do
        ({"duration": "x"}, None),
        ({"model": "nope"}, None),
    ],
)
def test_the_price_is_the_one_that_will_be_charged(person, values, price):
    assert person.send(PAGE, form(do="apply", **values)).context["price"] == price


def test_a_new_rate_shows_at_once(person):
    Rate.objects.create(model="mini", resolution="480p", credits_per_second=7, effective_at=clock.now())
    page = person.send(PAGE, form(do="apply", mode="live")).content.decode()
    assert "28 credits" in page


def test_the_balance_is_shown_beside_a_live_price_to_those_who_may_see_it(person):
    owner = Person(person.organization)
    sent = form(do="apply", mode="live", model="pro", resolution="1080p", duration="15")
    assert "1,000 credits are available" in owner.send(PAGE, sent).content.decode()
    assert "are available" not in person.send(PAGE, sent).content.decode()


def test_a_test_video_is_made_free_of_charge_and_followed_to_its_end(person):
    reply = person.send(PAGE, form(prompt=HOSTILE))
    task = Generation.objects.get()
    assert (reply.status_code, reply["Location"]) == (
        302,
        f"{PAGE}?organization={person.organization.pk}&task={task.pk}",
    )
    assert (task.is_test, task.api_key_id, task.created_by, task.credits) == (True, None, person.user, 20)
    assert UpstreamJob.objects.get().traffic == "test"
    assert ledger.balance(organization_id=person.organization.pk) == (1000, 0)

    page = person.read(reply["Location"])
    assert "<script>alert" not in page
    assert 'hx-trigger="every 2s"' in page
    assert "Refresh" in page
    part = person.read(f"{PAGE}tasks/{task.pk}/", is_part=True)
    assert 'hx-trigger="every 2s"' in part
    assert "<html" not in part
    assert person.get(f"{PAGE}tasks/{task.pk}/")["Location"] == reply["Location"]

    complete(task)
    part = person.read(f"{PAGE}tasks/{task.pk}/", is_part=True)
    assert 'hx-trigger="every' not in part
    assert f'src="https://media.example.com/videos/2026/06/29/{task.pk}.mp4"' in part


def test_a_live_video_is_held_for_as_v1_does_and_the_books_name_the_person(person):
    person.send(PAGE, form(mode="live"))
    task = Generation.objects.get()

    assert (task.is_test, ledger.balance(organization_id=person.organization.pk)) == (False, (980, 20))
    assert LedgerEntry.objects.get(kind="reserve").actor == f"user:{person.user.pk}"
    assert UpstreamJob.objects.get().traffic == "live"
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target, entry.actor) == ("task.created", task.pk, person.user)
    assert entry.after == {"model": "mini", "mode": "live", "credits": 20}


def test_whatever_is_not_live_to_the_letter_is_no_charge(person):
    for mode in ("LIVE", "live ", "", None, "prod"):
        assert person.send(PAGE, form(mode=mode)).status_code == 200
    assert not Generation.objects.exists()
    assert ledger.balance(organization_id=person.organization.pk) == (1000, 0)


def test_every_field_reaches_the_task_and_the_code_is_the_request(person):
    sent = form(
        model="pro",
        resolution="1080p",
        duration="7",
        aspect_ratio="9:16",
        image_urls="https://a.example/1.png\r\nhttps://a.example/2.png\r\n",
        video_urls="https://a.example/1.mp4",
        audio_urls=" https://a.example/1.mp3 ",
        generate_audio=None,
        watermark="on",
        return_last_frame="on",
        seed="42",
        callback_url="https://example.com/hook",
        metadata='{"b": 1, "a": [null, 2.5]}',
    )
    body = {
        "model": "pro",
        "input": {
            "prompt": "waves",
            "image_urls": ["https://a.example/1.png", "https://a.example/2.png"],
            "video_urls": ["https://a.example/1.mp4"],
            "audio_urls": ["https://a.example/1.mp3"],
            "duration": 7,
            "resolution": "1080p",
            "aspect_ratio": "9:16",
            "generate_audio": False,
            "watermark": True,
            "seed": 42,
            "return_last_frame": True,
        },
        "callback_url": "https://example.com/hook",
        "metadata": {"b": 1, "a": [None, 2.5]},
    }
    shown = person.send(PAGE, {**sent, "do": "apply"}).context
    assert shown["form"].body() == body

    person.send(PAGE, sent)
    task = Generation.objects.get()
    spec = requests.read(body).checked_spec()
    assert task.input == json.loads(json.dumps(spec.input_json()))
    assert (task.callback_url, task.metadata) == (spec.callback_url, spec.metadata)

    # The same request by a key makes a task that differs in nothing but who asked.
    Caller(person.organization).create(body)
    other = Generation.objects.exclude(pk=task.pk).get()
    assert (other.input, other.metadata, other.credits) == (task.input, task.metadata, task.credits)
    repeated = person.get(PAGE, {"from": task.pk}).context["form"]
    assert repeated.body() == body


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"prompt": "  "}, "prompt", "Prompt must not be empty."),
        ({"prompt": "x" * 5001}, "prompt", "Prompt must not be longer than 5000 characters."),
        ({"duration": "3"}, "duration", "Duration in seconds must be between 4 and 15."),
        ({"duration": "long"}, "duration", "Duration in seconds must be an integer."),
        ({"resolution": "1080p"}, "resolution", "Resolution must be one of 480p, 720p for the model mini."),
        ({"resolution": "8k"}, "resolution", "Resolution must be one of 480p, 720p, 1080p."),
        ({"image_urls": "https://a.example/1.png\nnope"}, "image_urls", "Reference images, line 2, must"),
        ({"start_image_url": "https://a.example/1.png"}, "start_image_url", "First frame is only for"),
        (
            {"generation_type": "first_and_last_frames", "start_image_url": "https://a.example/1.png"},
            "end_image_url",
            "Last frame is required together",
        ),
        ({"callback_url": "http://127.0.0.1/"}, "callback_url", "Webhook URL must"),
        ({"metadata": "[1]"}, "metadata", "Metadata must be a JSON object."),
        ({"metadata": "{"}, "metadata", "Metadata is not valid JSON"),
        ({"metadata": '{"a": "\\u0000"}'}, "metadata", "must not contain NUL"),
        ({"metadata": '{"a": "\\ud800"}'}, "metadata", "must not contain unpaired surrogates"),
        ({"metadata": '{"a": NaN}'}, "metadata", "NaN is not a JSON value"),
        ({"seed": "-2"}, "seed", "Seed must be between"),
        ({"prompt": "a\x00b"}, "prompt", "Null characters are not allowed."),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_made(person, values, field, message):
    before = person.holdings()
    reply = person.send(PAGE, form(mode="live", **values))

    assert reply.status_code == 200
    assert any(message in error for error in reply.context["form"].errors[field]), reply.context["form"].errors
    assert f'id="id_{field}_error"' in reply.content.decode()
    assert person.holdings() == before
    assert not AuditEntry.objects.exists()
    # The form keeps its token, and goes through once it is mended.
    assert f'value="{TOKEN}"' in reply.content.decode()


def test_credits_that_do_not_suffice_are_told_with_nothing_held(person):
    sent = form(mode="live", model="pro", resolution="1080p", duration="15")
    assert person.send(PAGE, sent).status_code == 302
    before = person.holdings()

    reply = person.send(PAGE, {**sent, "token": "f" * 32})

    assert "Your credit balance is too low. Please top up." in reply.content.decode()
    assert person.holdings() == before
    assert AuditEntry.objects.count() == 1


def test_a_model_that_was_switched_off_is_told(person):
    PublicModel.objects.filter(name="mini").update(is_active=False)
    reply = person.send(PAGE, form())
    assert "does not exist or is inactive" in reply.content.decode()
    assert not Generation.objects.exists()


def test_a_form_sent_twice_makes_one_task_and_both_lead_to_it(person):
    first, second = (person.send(PAGE, form(mode="live")) for _ in range(2))

    assert first["Location"] == second["Location"]
    assert (Generation.objects.count(), AuditEntry.objects.count()) == (1, 1)
    assert ledger.balance(organization_id=person.organization.pk) == (980, 20)
    # Another person's form with the same token is another form.
    Person(person.organization).send(PAGE, form(mode="live"))
    assert Generation.objects.count() == 2


def test_a_form_sent_again_with_other_values_asks_first(person):
    person.send(PAGE, form())
    reply = person.send(PAGE, form(prompt="other waves"))
    page = reply.content.decode()

    assert "was sent before with other values" in page
    assert Generation.objects.count() == 1
    (token,) = re.findall(r'name="token" value="([0-9a-f]{32})"', page)
    assert token != TOKEN
    assert person.send(PAGE, form(prompt="other waves", token=token)).status_code == 302


@pytest.mark.parametrize("token", ["", "x", None, "0" * 33])
def test_a_form_without_a_token_makes_nothing(person, token):
    assert "out of date" in person.send(PAGE, form(token=token)).content.decode()
    assert not Generation.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.race
def test_clicks_in_the_same_moment_make_one_task(settings):
    person = Person(funded_organization())
    barrier, replies = threading.Barrier(4), []

    def click():
        barrier.wait()
        replies.append(person.send(PAGE, form(mode="live")))
        connections.close_all()

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {reply.status_code for reply in replies} == {302}
    assert len({reply["Location"] for reply in replies}) == 1
    assert Generation.objects.count() == 1
    assert ledger.balance(organization_id=person.organization.pk) == (980, 20)


def test_too_many_within_a_minute_are_refused(person, settings):
    settings.RATE_LIMIT_CREATES = 2
    cache.clear()
    with time_machine.travel(clock.now(), tick=False):
        for number in range(2):
            assert person.send(PAGE, form(token=f"{number:032}")).status_code == 302
        assert "Too many videos within a minute" in person.send(PAGE, form(token=f"{2:032}")).content.decode()
    assert Generation.objects.count() == 2


def test_a_key_that_was_chosen_may_allow_fewer_within_a_minute_never_more(person, settings):
    settings.RATE_LIMIT_CREATES = 2
    issue_key(person.organization, created_by=person.user, create_rate_limit=1)
    key = ApiKey.objects.get()
    values = {"mode": "live", "key": str(key.pk)}
    with time_machine.travel(clock.now(), tick=False):
        assert person.send(PAGE, form(token=f"{0:032}", **values)).status_code == 302
        assert "Too many videos within a minute" in person.send(PAGE, form(token=f"{1:032}", **values)).content.decode()
        ApiKey.objects.update(create_rate_limit=100)
        replies = [person.send(PAGE, form(token=f"{number:032}", **values)).status_code for number in (2, 3)]
    # What was made within the minute counts, whichever limit held then.
    assert replies == [302, 200]
    assert Generation.objects.count() == 2


def test_a_suspended_organization_makes_nothing(person):
    person.organization.is_suspended = True
    person.organization.save()
    assert "is suspended" in person.read(PAGE)
    assert "is suspended" in person.send(PAGE, form()).content.decode()
    assert not Generation.objects.exists()


def test_a_live_video_keeps_to_the_key_that_was_chosen(person):
    def live(**values):
        reply = person.send(PAGE, form(token=uuid.uuid4().hex, mode="live", **values))
        return "made" if reply.status_code == 302 else reply.content.decode()

    assert "no API key" in person.read(PAGE)
    issue_key(person.organization, created_by=person.user, monthly_credit_cap=30, allowed_models=["mini"])
    capped = ApiKey.objects.get(created_by=person.user)
    issue_key(person.organization, monthly_credit_cap=90)
    foreign = ApiKey.objects.get(organization=person.organization, monthly_credit_cap=90)
    page = person.read(PAGE)
    assert (capped.masked in page, foreign.masked in page) == (True, False)

    before = person.holdings()
    assert "Choose one of your live keys" in live(key=str(foreign.pk))
    assert "may not use the model fast, only mini" in html.unescape(live(key=str(capped.pk), model="fast"))
    assert person.holdings() == before
    assert live(key=str(capped.pk)) == "made"
    assert "reached its cap of 30 credits a month: 10 are left" in live(key=str(capped.pk))
    assert live() == "made"  # nothing demands a key yet
    assert list(KeyAllowance.objects.values_list("api_key", "used")) == [(capped.pk, 20)]
    noted = AuditEntry.objects.filter(action="task.created").order_by("pk").first()
    assert noted.after["within the limits of"] == f"{capped.name} ({capped.masked})"

    organizations.change(organization=person.organization, actor=None, demands_key_caps=True)
    before = person.holdings()
    assert "Choose one of your live keys" in live()
    assert "10 are left" in live(key=str(capped.pk))
    assert person.send(PAGE, form(token=uuid.uuid4().hex)).status_code == 302  # a test video is free
    keys.revoke(key=capped, revoked_by=None)
    assert "You have no live key with a cap" in live(key=str(capped.pk))
    assert person.holdings()[2:] == before[2:]
    admin = Person(person.organization, Role.ADMIN)
    assert admin.send(PAGE, form(token=uuid.uuid4().hex, mode="live")).status_code == 302


@pytest.mark.parametrize("role", Role.values)
def test_who_may_make_videos(person, role):
    may = role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER)
    member = Person(person.organization, role)
    task = create_generation(person.organization)
    before = member.holdings()

    assert member.get(PAGE).status_code == (200 if may else 403)
    assert member.get(f"{PAGE}tasks/{task.pk}/", is_part=True).status_code == (200 if may else 403)
    assert member.send(PAGE, form(mode="live")).status_code == (302 if may else 403)
    assert (member.holdings() == before) == (not may)


def test_a_stranger_neither_sees_nor_repeats_a_task_nor_spends_for_others(person):
    task = create_generation(person.organization, prompt="secret plans")
    stranger = Person(OrganizationFactory.create())

    for query in ({"task": task.pk}, {"from": task.pk}, {"task": task.pk, "organization": person.organization.pk}):
        assert stranger.get(PAGE, query).status_code == 404
    for is_part in (False, True):
        assert stranger.get(f"{PAGE}tasks/{task.pk}/", is_part=is_part).status_code == 404
    before = person.holdings()
    assert stranger.send(PAGE, form(mode="live", organization=str(person.organization.pk))).status_code == 404
    assert person.holdings() == before


def test_a_form_from_elsewhere_makes_nothing(person):
    person.browser.handler.enforce_csrf_checks = True
    assert person.send(PAGE, form()).status_code == 403
    assert not Generation.objects.exists()


def test_v1_takes_no_session(person):
    body = json.dumps({"model": "mini", "input": {"prompt": "waves"}})
    post = person.browser.post(TASKS, body, content_type="application/json")
    got = person.browser.get(TASKS)

    for reply in (post, got):
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not Generation.objects.exists()


def test_ones_own_last_videos_are_listed(person):
    colleague = Person(person.organization)
    colleague.send(PAGE, form(prompt="of a colleague"))
    for number in range(10):
        person.send(PAGE, form(prompt=f"number {number}", token=f"{number:032}"))

    listed = re.findall(r"number \d+", person.read(PAGE))
    assert listed == [f"number {number}" for number in range(9, 1, -1)]
    assert "of a colleague" not in person.read(PAGE)


def test_a_failed_task_says_why_and_what_came_back(person):
    person.send(PAGE, form(mode="live"))
    task = Generation.objects.get()
    lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.CONTENT_POLICY_VIOLATION)
    part = person.read(f"{PAGE}tasks/{task.pk}/", is_part=True)
    assert "refused by the content policy" in part
    assert "20 credits were given back" in part


def test_the_page_costs_few_queries(person, same_second, django_assert_max_num_queries):
    person.send(PAGE, form())
    task = Generation.objects.get()
    owner = Person(person.organization)
    owner.read(PAGE)  # which notes, once a minute, that the session and the membership are in use
    with django_assert_max_num_queries(12):
        owner.read(PAGE, {"task": task.pk})
    with django_assert_max_num_queries(6):
        owner.read(f"{PAGE}tasks/{task.pk}/", is_part=True)
