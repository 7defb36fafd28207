"""The smoke test of a channel, against every emulated provider."""

import io

import pytest
from django.core.management import CommandError, call_command

from providers import emulators, presets
from providers.emulators.server import Pace
from providers.models import Channel, Credential, Route, UpstreamJob

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def loopback(settings) -> None:
    """Loopback may be called, and callbacks go where nobody listens."""
    settings.OUTBOUND_ALLOWED_HOSTS = ["127.0.0.1"]
    settings.PUBLIC_BASE_URL = "http://127.0.0.1:9"


def smoke(name, **knobs):
    emulator = emulators.find(name)(key="the key", pace=Pace(0.1, 0.3))
    emulator.knobs |= knobs
    with emulator.serving():
        preset = presets.emulated(name, origin=emulator.origin)
        channel = presets.install(name="tried", preset=preset, credential="the key")
        Channel.objects.filter(pk=channel.pk).update(output_hosts=["127.0.0.1"])
        out = io.StringIO()
        try:
            call_command("provider_smoke", "tried", "--yes", "--patience", "6", stdout=out)
            error = ""
        except CommandError as raised:
            error = str(raised)
    return out.getvalue(), error, len(emulator.submissions)


@pytest.mark.parametrize("name", sorted(emulators.EMULATORS))
def test_a_provider_that_does_as_its_sheet_says_passes(name):
    told, error, submission_count = smoke(name)

    assert (error, submission_count) == ("", 1), told
    assert "0 of them differ" in told
    assert "the key" not in told
    assert not UpstreamJob.objects.exists()


@pytest.mark.parametrize(
    ("knob", "assumption"),
    [
        ({"result": "short"}, "it lasts as long as was asked"),
        ({"result": "foreign"}, "the video can be fetched from a known host"),
        ({"status": "unknown"}, "every status is one that we know"),
        ({"submit": "error:AuthenticationError"}, "a submission is accepted"),
    ],
)
def test_what_differs_is_named(knob, assumption):
    told, error, _ = smoke("ark", **knob)

    assert f"DIFFERS   {assumption}" in told
    assert error.startswith("Mend the adapter")


def test_without_a_channel_or_a_yes_nothing_is_sent(monkeypatch):
    with pytest.raises(CommandError, match=r"There is no channel named .none.\. There are: sandbox\."):
        call_command("provider_smoke", "none")
    monkeypatch.setattr("builtins.input", lambda _: "n")
    with pytest.raises(CommandError, match=r"Nothing was sent\."):
        call_command("provider_smoke", "sandbox")


def test_a_channel_is_added_with_its_key_sealed_and_its_routes_off(monkeypatch):
    monkeypatch.setenv("PROVIDER_KEY", "a real key")
    call_command("add_channel", "byteplus", stdout=io.StringIO())

    channel = Channel.objects.get(name="byteplus")
    assert (channel.adapter, channel.max_open) == ("ark", 3)
    assert b"a real key" not in bytes(Credential.objects.get().sealed_secret)
    assert set(Route.objects.filter(channel=channel).values_list("model", "traffic", "is_active")) == {
        (model, "live", False) for model in ("pro", "fast", "mini")
    }
    with pytest.raises(CommandError, match="A channel named byteplus exists"):
        call_command("add_channel", "byteplus")
