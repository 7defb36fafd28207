"""A client that a generator makes from the served schema works against the running server, with types."""

import datetime as dt
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from accounts.tests.factories import issue_key
from generations import lifecycle
from generations.models import Generation
from generations.tests.factories import funded_organization
from seedancee2.lib import clock
from tests import web
from tests.receivers import Receiver
from webhooks.tests.factories import DeliveryFactory

NAME = "generated_client"

# One server and one client serve every test here, so they stay on one worker.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("generated client")]


def _generate(base_url: str, folder: Path) -> None:
    (folder / "openapi.json").write_bytes(requests.get(f"{base_url}/openapi.json", timeout=30).content)
    (folder / "config.yml").write_text("post_hooks: []\n")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"),
            *("--path", "openapi.json", "--config", "config.yml", "--output-path", NAME),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "WARNING" not in result.stdout, result.stdout


@pytest.fixture(scope="module")
def base_url(django_db_setup, tmp_path_factory):
    """One server for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUTBOUND_ALLOWED_HOSTS", "127.0.0.1")
        with web.server(tmp_path_factory.mktemp("web") / "web.log") as base_url:
            yield base_url


@pytest.fixture(scope="module")
def package(base_url, tmp_path_factory):
    """The client that is generated from the server's schema."""
    folder = tmp_path_factory.mktemp("client")
    _generate(base_url, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module(NAME)
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


@pytest.fixture
def api(base_url, package):
    """The generated client's modules, a client with a key, and the key's organization."""
    organization = funded_organization(credits=100)
    key = issue_key(organization)
    with (
        package.AuthenticatedClient(base_url=base_url, token=key) as client,
        package.AuthenticatedClient(base_url=base_url, token="sk_seedancee2_live_no_such_key") as stranger,
    ):
        yield SimpleNamespace(
            organization=organization,
            client=client,
            stranger=stranger,
            models=importlib.import_module(f"{NAME}.models"),
            tasks=_modules("video_tasks", "create_video_task", "get_video_task", "list_video_tasks"),
            list_models=importlib.import_module(f"{NAME}.api.models.list_models"),
            get_usage=importlib.import_module(f"{NAME}.api.usage.get_usage"),
            webhooks=_modules(
                "webhooks",
                *("list_webhook_deliveries", "get_webhook_delivery", "redeliver_webhook"),
                *("send_test_webhook", "recover_webhooks"),
            ),
        )


def _modules(package: str, *names: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: importlib.import_module(f"{NAME}.api.{package}.{name}") for name in names})


def _request(models, **input_values):
    metadata = models.Metadata()
    metadata["customer_job_id"] = "job_123"
    return models.CreateVideoTaskRequest(
        model=models.ModelName.MINI,
        input_=models.VideoInput(
            prompt="waves",
            duration=4,
            resolution=models.Resolution.RESOLUTION_480P,
            aspect_ratio=models.AspectRatio.RATIO_16_9,
            **input_values,
        ),
        metadata=metadata,
    )


def test_tasks_are_created_and_shown_with_the_type_of_their_status(api):
    def get():
        return api.tasks.get_video_task.sync(created.data.id, client=api.client).data

    reply = api.tasks.create_video_task.sync_detailed(
        client=api.client, body=_request(api.models), idempotency_key="order-1"
    )
    created = reply.parsed
    assert reply.status_code == 201
    assert isinstance(created, api.models.CreatedTaskReply)
    assert created.data.credits_reserved == 20
    assert isinstance(created.data.created_at, dt.datetime)

    assert isinstance(get(), api.models.PendingTask)
    assert get().metadata["customer_job_id"] == "job_123"
    lifecycle.start(public_ids=[created.data.id])
    assert isinstance(get(), api.models.ProcessingTask)
    web.complete(Generation.objects.get(pk=created.data.id))
    completed = get()
    assert isinstance(completed, api.models.CompletedTask)
    assert completed.output.video_url.endswith(f"{created.data.id}.mp4")
    assert isinstance(completed.completed_at, dt.datetime)
    assert completed.credits_charged == 20

    failed = api.tasks.create_video_task.sync(client=api.client, body=_request(api.models)).data
    lifecycle.fail(public_id=failed.id, code=Generation.ErrorCode.GENERATION_TIMEOUT)
    page = api.tasks.list_video_tasks.sync(client=api.client, limit=5, status=api.models.TaskStatus.FAILED)
    (shown,) = page.data
    assert isinstance(shown, api.models.FailedTask)
    assert shown.error.code is api.models.TaskErrorCode.GENERATION_TIMEOUT
    assert (shown.credits_charged, shown.credits_refunded) == (0, 20)


def test_models_and_usage_are_typed(api):
    api.tasks.create_video_task.sync(client=api.client, body=_request(api.models))

    listed = api.list_models.sync(client=api.client)
    usage = api.get_usage.sync(client=api.client, limit=7)

    assert [model.id for model in listed.data] == ["pro", "fast", "mini"]
    assert api.models.Resolution.RESOLUTION_1080P in listed.data[0].resolutions
    assert isinstance(usage, api.models.UsageReply)
    assert usage.data.summary.pending_jobs == usage.data.by_model[0].pending_jobs == 1
    assert usage.data.timeline[0].date == dt.datetime.now(dt.UTC).date()


def test_webhooks_are_seen_tried_and_sent_again_with_types(api):
    webhooks, models = api.webhooks, api.models
    row = DeliveryFactory.create(
        organization=api.organization, state="abandoned", due_at=None, finished_at=clock.now(), attempt_count=12
    )
    row.attempts.create(number=12, started_at=clock.now(), duration_ms=3, status_code=500)

    (listed,) = webhooks.list_webhook_deliveries.sync(
        client=api.client,
        state=models.WebhookDeliveryState.FAILED,
        event=models.WebhookEvent.VIDEO_GENERATION_COMPLETED,
    ).data
    found = webhooks.get_webhook_delivery.sync(row.pk, client=api.client).data
    with Receiver() as receiver:
        sample = webhooks.send_test_webhook.sync(
            client=api.client, body=models.SendTestWebhookRequest(url=receiver.url("/hook"))
        ).data
        (received,) = receiver.requests
    since = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).isoformat()
    recovery = webhooks.recover_webhooks.sync(client=api.client, body=models.RecoverWebhooksRequest(since=since)).data
    again = webhooks.redeliver_webhook.sync_detailed(row.pk, client=api.client)

    assert (listed.id, listed.next_attempt_at, listed.delivered_at) == (row.pk, None, None)
    assert found.attempts[0].error == "The server answered 500 instead of a 2xx status."
    assert found.body.additional_properties == {"data": {"id": "vid_1"}}
    assert (sample.is_delivered, sample.status_code, sample.request.body.encode()) == (True, 200, received.body)
    assert sample.request.headers["X-Seedancee2-Event"] == received.headers["x-seedancee2-event"]
    assert (recovery.recovered_count, recovery.has_more) == (1, False)
    assert (again.status_code, again.parsed.data.state) == (202, models.WebhookDeliveryState.PENDING)
    assert isinstance(again.parsed.data.next_attempt_at, dt.datetime)


def test_errors_are_typed_too(api):
    wrong = api.tasks.create_video_task.sync(client=api.client, body=_request(api.models, seed=-2))
    poor = api.tasks.create_video_task.sync(
        client=api.client,
        body=api.models.CreateVideoTaskRequest(
            model=api.models.ModelName.PRO, input_=api.models.VideoInput(prompt="waves", duration=15)
        ),
    )
    unknown = api.tasks.get_video_task.sync("vid_01jz8b7q4x8k2p9w3m5c6n7r8s", client=api.client)
    nobody = api.list_models.sync(client=api.stranger)

    assert isinstance(wrong, api.models.Error)
    assert wrong.error.message == "input.seed must be between -1 and 9007199254740991."
    assert [reply.error.code for reply in (poor, unknown, nobody)] == [
        "insufficient_credits",
        "task_not_found",
        "invalid_api_key",
    ]
