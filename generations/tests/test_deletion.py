"""Deletion on demand: what goes, what stays, who may, and what a crash in between leaves behind."""

import datetime as dt
import uuid
from pathlib import Path

import pytest
import time_machine
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, default_storage
from django.test import Client

from accounts.models import AuditEntry
from billing import ledger
from billing.models import LedgerEntry
from billing.reconciliation import BEGINNING
from generations import deletion, lifecycle, media, payloads, reconciliation
from generations.models import Generation, OutputAsset
from generations.tests.callers import TASKS, Caller
from generations.tests.factories import create_generation, funded_organization
from generations.tests.people import Person, Role
from generations.tests.pipeline import route_live_traffic_to_sandbox, run_to_end
from providers import jobs, late
from providers.adapters.base import ErrorClass, Exchange, Failed, Succeeded
from providers.models import SandboxRun, UpstreamCall, UpstreamJob
from seedancee2.lib import clock
from tests.crashes import after, before, killed
from webhooks import callbacks
from webhooks.models import Callback, Delivery

pytestmark = pytest.mark.django_db

SECRET = "the unreleased blue sedan"
REFERENCE = "https://cdn.example.com/unreleased-sedan.png"


@pytest.fixture(autouse=True)
def media_folder(settings, tmp_path) -> Path:
    """Media goes to a folder of this test."""
    options = {"location": str(tmp_path), "allow_overwrite": True}
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    settings.MEDIA_BASE_URL = "http://testserver/media"
    return Path(tmp_path)


@pytest.fixture
def caller() -> Caller:
    """A customer with 1,000 credits and a live key."""
    return Caller(funded_organization())


def asked(caller: Caller) -> Generation:
    """Make a live task of 20 credits with a last frame, a reference and metadata."""
    return create_generation(
        caller.organization,
        prompt=SECRET,
        image_urls=(REFERENCE,),
        return_last_frame=True,
        metadata={"job": "7"},
        callback_url="https://example.com/hook",
    )


@pytest.fixture
def rendered(caller) -> Generation:
    """A task as the whole pipeline completed it."""
    route_live_traffic_to_sandbox()
    with time_machine.travel(dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5), tick=False) as turned:
        return run_to_end(turned, asked(caller))


@pytest.fixture
def task(caller) -> Generation:
    """A completed task whose three files hold nothing much."""
    task = asked(caller)
    files = []
    for kind in OutputAsset.Kind:
        path = default_storage.save(media.path_for(task, kind), ContentFile(b"four"))
        files.append(OutputAsset(generation=task, kind=kind, path=path, size_bytes=4, sha256="0" * 64))
    return lifecycle.complete(public_id=task.pk, assets=files)


def path_of(task: Generation) -> str:
    return f"/console/tasks/{task.public_id}/delete/"


def everything_kept() -> str:
    """Return the text of every row that could hold what a customer sent."""
    models = (Generation, OutputAsset, UpstreamJob, UpstreamCall, SandboxRun, Callback, Delivery, AuditEntry)
    rows = [row for model in models for row in model.objects.values()]
    return " ".join(
        str(bytes(value) if isinstance(value, memoryview) else value) for row in rows for value in row.values()
    )


def test_what_was_asked_goes_from_every_table_and_what_was_paid_stays(caller, rendered):
    task = rendered
    person = Person(caller.organization)
    public = caller.get(f"{TASKS}/{task.pk}").content
    entries, balance = list(LedgerEntry.objects.values()), ledger.balance(organization_id=caller.organization.pk)
    files = list(OutputAsset.objects.values_list("path", flat=True))
    job = UpstreamJob.objects.get()
    Callback.objects.create(job=job, body=SECRET.encode(), body_sha256=b"1", verdict="hint")
    UpstreamCall.objects.create(job=job, kind="submit", request=SECRET, response=SECRET)
    assert SECRET in everything_kept()
    assert REFERENCE in everything_kept()
    assert len(files) == 3

    reply = person.send(path_of(task), {"confirmation": task.pk})

    assert (reply.status_code, reply["Location"]) == (
        302,
        f"/console/tasks/{task.pk}/?organization={caller.organization.pk}",
    )
    assert "sedan" not in everything_kept()
    assert list(LedgerEntry.objects.values()) == entries
    assert ledger.balance(organization_id=caller.organization.pk) == balance
    assert caller.get(f"{TASKS}/{task.pk}").content == public  # the task's body stays as it is
    for path in files:
        assert Client().get(f"/media/{path}").status_code == 410
    entry = AuditEntry.objects.get(action="task.deleted")
    assert (entry.target, entry.actor, entry.before, entry.after) == (
        *(task.pk, person.user),
        *({"files": 3, "prompts": 1}, {"files": 0, "prompts": 0}),
    )

    assert deletion.sweep() == 3
    assert [default_storage.exists(path) for path in files] == [False, False, False]
    for path in files:
        gone = Client().get(f"/media/{path}")
        assert (gone.status_code, "max-age" in gone.get("Cache-Control", "")) == (410, False)
    assert deletion.sweep() == 0
    assert reconciliation.discrepancies(since=BEGINNING, is_every_file=True) == []

    page = person.read(f"/console/tasks/{task.pk}/")
    assert "The video was deleted" in page
    assert "Delete video and prompt" not in page
    assert "sedan" not in page


def test_a_file_that_was_seen_before_is_asked_for_again_and_is_gone(caller, task):
    address = f"/media/{OutputAsset.objects.get(kind='video').path}"
    seen = Client().get(address)
    assert seen["Cache-Control"] == "private, max-age=300, must-revalidate"
    again = {"if-none-match": seen["ETag"]}
    kept = Client().get(address, headers=again)
    assert (kept.status_code, kept["Cache-Control"]) == (304, seen["Cache-Control"])

    deletion.hide_files([task.pk])

    gone = Client().get(address, headers=again)
    assert (gone.status_code, gone["Cache-Control"]) == (410, "no-store")
    others = [address.replace("/media/", f"/media/{spelling}") for spelling in ("./", "x/../", "/")]
    assert [Client().get(other).status_code for other in others] == [404, 404, 404]


def test_what_a_provider_says_after_the_deletion_is_not_kept(caller, settings):
    settings.TASK_DEADLINE_SECONDS = 120
    with time_machine.travel(clock.now(), tick=False) as turned:
        task = create_generation(caller.organization, is_test=True, prompt=f"{SECRET} [sandbox:stuck]")
        run_to_end(turned, task, seconds=400)
        assert deletion.erase_prompts([task.pk]) == 1
    job = UpstreamJob.objects.select_related("channel").get()
    calls, kept = UpstreamCall.objects.count(), Callback.objects.count()
    said = Exchange(kind="fetch", status_code=200, request=SECRET, response=SECRET, duration_ms=1)

    jobs.record_calls(job, [said], clock.now())
    callbacks._keep(job, {"content-type": SECRET}, SECRET.encode(), Callback.Verdict.HINT, SECRET)
    # A worker that had asked before the deletion, and hears only now.
    for write in (
        lambda row: jobs.failed(row, Failed(ErrorClass.CUSTOMER_MODERATION, SECRET)),
        lambda row: jobs.succeeded(row, Succeeded(f"https://cdn.example.com/{SECRET}.mp4")),
    ):
        UpstreamJob.objects.update(lease_token=uuid.uuid4(), status="running", finished_at=None)
        write(UpstreamJob.objects.select_related("channel").get())

    assert (UpstreamCall.objects.count(), Callback.objects.count()) == (calls + 1, kept + 1)
    assert "sedan" not in everything_kept()
    assert UpstreamJob.objects.get().result == {}


def test_a_repeat_changes_nothing(caller, task):
    person = Person(caller.organization)
    person.send(path_of(task), {"confirmation": task.pk})
    deletion.sweep()
    rows = (Generation.objects.values().get(), list(OutputAsset.objects.values()))

    assert person.send(path_of(task), {"confirmation": task.pk}).status_code == 302

    assert (Generation.objects.values().get(), list(OutputAsset.objects.values())) == rows
    assert AuditEntry.objects.filter(action="task.deleted").count() == 1
    assert deletion.sweep() == 0


@pytest.mark.parametrize("role", Role.values)
def test_owners_and_admins_may_and_others_change_nothing(caller, task, role):
    may = role in (Role.OWNER, Role.ADMIN)
    person = Person(caller.organization, role)

    assert person.get(path_of(task)).status_code == (200 if may else 403)
    assert person.send(path_of(task), {"confirmation": task.pk}).status_code == (302 if may else 403)

    task.refresh_from_db()
    assert (task.prompt_deleted_at is not None) == may
    assert OutputAsset.objects.filter(deletion_asked_at__isnull=False).count() == (3 if may else 0)


def test_the_button_is_shown_to_those_who_may(caller, task):
    shown = {
        role: "Delete video" in Person(caller.organization, role).read(f"/console/tasks/{task.pk}/") for role in Role
    }
    assert shown == {role: role in (Role.OWNER, Role.ADMIN) for role in Role}


def test_the_id_has_to_be_typed_and_a_stranger_finds_nothing(caller, task):
    person, stranger = Person(caller.organization), Person(funded_organization())

    for typed in ("", "vid_", task.pk[:-1], task.pk.upper()):
        reply = person.send(path_of(task), {"confirmation": typed})
        assert (reply.status_code, "Nothing was deleted" in reply.content.decode()) == (200, True)
    named = {"confirmation": task.pk, "organization": caller.organization.pk}
    for values in ({"confirmation": task.pk}, named):
        assert stranger.send(path_of(task), values).status_code == 404
    assert stranger.get(path_of(task)).status_code == 404

    task.refresh_from_db()
    assert (task.prompt_deleted_at, task.input["prompt"]) == (None, SECRET)
    assert not OutputAsset.objects.filter(deletion_asked_at__isnull=False).exists()
    assert not AuditEntry.objects.exclude(action="key.issued").exists()


def test_an_open_task_is_not_deleted(caller):
    task = create_generation(caller.organization, prompt=SECRET)
    person = Person(caller.organization)

    reply = person.send(path_of(task), {"confirmation": task.pk})

    assert "has not ended" in reply.content.decode()
    task.refresh_from_db()
    assert (task.prompt_deleted_at, task.input["prompt"]) == (None, SECRET)
    with pytest.raises(deletion.StillOpen):
        deletion.delete(public_id=task.pk, organization_id=caller.organization.pk, actor=person.user)


def test_a_failed_task_has_only_a_prompt_to_lose(caller):
    task = create_generation(caller.organization, prompt=SECRET)
    lifecycle.fail(public_id=task.pk, code=Generation.ErrorCode.GENERATION_FAILED)
    Person(caller.organization).send(path_of(task), {"confirmation": task.pk})

    assert AuditEntry.objects.exclude(action="key.issued").get().before == {"files": 0, "prompts": 1}
    assert "sedan" not in everything_kept()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("point", "left"),
    [(before(FileSystemStorage, "delete"), (3, 3)), (after(FileSystemStorage, "delete"), (2, 3))],
)
def test_a_worker_killed_before_or_after_a_file_went_leaves_it_due(caller, task, media_folder, point, left):
    deletion.hide_files([task.pk])

    killed(deletion.sweep, at=point)

    def due() -> int:
        return OutputAsset.objects.filter(deleted_at__isnull=True).count()

    assert (_file_count(media_folder), due()) == left
    assert deletion.sweep() == 3
    assert (_file_count(media_folder), due()) == (0, 0)


def _file_count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_a_file_that_the_storage_keeps_holds_up_no_other_and_is_tried_again(caller, task, monkeypatch):
    deletion.hide_files([task.pk])
    stubborn = OutputAsset.objects.order_by("pk")[0]
    delete = type(default_storage._wrapped).delete

    def refusing(storage, name):
        if name == stubborn.path:
            raise PermissionError("read-only")
        delete(storage, name)

    with monkeypatch.context() as patched:
        patched.setattr(type(default_storage._wrapped), "delete", refusing)
        assert deletion.sweep() == 2
    stubborn.refresh_from_db()
    assert stubborn.deleted_at is None
    assert Client().get(f"/media/{stubborn.path}").status_code == 410

    assert deletion.sweep() == 1


def test_a_worker_that_stores_the_files_again_has_them_deleted_again(caller, task):
    deletion.hide_files([task.pk])
    deletion.sweep()
    asset = OutputAsset.objects.get(kind="video")
    Path(default_storage.path(asset.path)).write_bytes(b"stored again by a worker that had lost its lease")

    lifecycle.complete(public_id=task.pk, assets=[])

    assert deletion.sweep() == 3
    assert not default_storage.exists(asset.path)


def test_a_file_that_is_missing_without_a_wish_is_still_damage(caller, task):
    video = OutputAsset.objects.get(kind="video")
    default_storage.delete(video.path)
    deletion.hide_files([])

    found = reconciliation.discrepancies(since=BEGINNING, is_every_file=True)
    assert [item.subject for item in found] == [f"file {video.path}"]


def test_the_sandbox_still_reads_its_directives_in_a_run_that_is_watched(caller, settings):
    settings.TASK_DEADLINE_SECONDS = 120
    with time_machine.travel(clock.now(), tick=False) as turned:
        task = create_generation(caller.organization, is_test=True, prompt=f"{SECRET} [sandbox:stuck] and more")
        run_to_end(turned, task, seconds=400)
        assert deletion.erase_prompts([task.pk]) == 1
        turned.shift(dt.timedelta(minutes=6))
        (job,) = late.claim_due(10)
        late.look(job)

    assert SandboxRun.objects.get().request["prompt"] == "[sandbox:stuck]"
    assert UpstreamJob.objects.get().late_at is None


def test_the_request_of_a_deleted_task_holds_no_content(caller, task):
    deletion.erase_prompts([task.pk])
    task.refresh_from_db()

    said = payloads.request(task)
    assert said["input"] == {
        "duration": 4,
        "resolution": "480p",
        "aspect_ratio": "adaptive",
        "return_last_frame": True,
    }
