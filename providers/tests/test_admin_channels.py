"""The staff's page of a channel: its keys go where they were meant to go, and nowhere else."""

import pytest

from providers import channels, jobs
from providers.adapters.base import JobRequest
from providers.admin import ChannelForm
from providers.models import Channel, UpstreamJob
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel() -> Channel:
    """A channel with a key."""
    made = Channel.objects.create(name="real", adapter="kie", base_url="https://api.kie.ai")
    channels.set_credential(channel=made, credential="the key")
    return made


def errors(channel, **changes):
    values = {
        "name": channel.name,
        "adapter": channel.adapter,
        "base_url": channel.base_url,
        "state": channel.state,
        "unknown_policy": channel.unknown_policy,
        "unknown_grace_seconds": channel.unknown_grace_seconds,
        "options": "{}",
        "output_hosts": "",
    }
    return dict(ChannelForm(values | changes, instance=channel).errors)


def test_a_key_is_never_sent_to_another_host(channel):
    assert errors(channel) == {}
    assert errors(channel, base_url="https://api.kie.ai/v2") == {}
    for url in ("https://evil.example.com", "http://api.kie.ai", "https://api.kie.ai:8443"):
        assert list(errors(channel, base_url=url)) == ["credential"]
    assert errors(channel, base_url="https://new.kie.ai", credential="another") == {}


def test_a_channel_with_jobs_under_way_stays_where_it_is(channel):
    request = JobRequest("mini", "waves", 4, "480p", "16:9", False, False, False)
    job = jobs.open(reference="vid_a", request=request, traffic="live", deadline_at=clock.now())
    UpstreamJob.objects.filter(pk=job.pk).update(channel=channel, status="running", upstream_id="x")

    assert list(errors(channel, base_url="https://new.kie.ai", credential="another")) == ["base_url"]
    assert list(errors(channel, adapter="fal")) == ["adapter"]
