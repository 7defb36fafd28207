"""Retention: what is too old goes, once, in small batches; all else is left alone."""

import datetime as dt

import pytest

from accounts.models import AuditEntry, Organization
from generations import deletion, lifecycle, retention
from generations.models import Generation, OutputAsset, RetentionMark
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import clock
from tests.web import complete

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization() -> Organization:
    """An organization with 1,000 credits."""
    return funded_organization()


@pytest.fixture
def keep():
    """Set for how many days organizations keep media and prompts."""

    def set_days(media=None, prompts=None):
        Organization.objects.update(media_retention_days=media, prompt_retention_days=prompts)

    return set_days


def aged(organization: Organization, days: float, *, is_test: bool = False, has_ended: bool = True) -> Generation:
    task = create_generation(organization, is_test=is_test, prompt="a secret")
    if has_ended:
        complete(task)
    Generation.objects.filter(pk=task.pk).update(created_at=clock.now() - dt.timedelta(days=days))
    return task


def deleted_prompts() -> set[str]:
    return set(Generation.objects.filter(prompt_deleted_at__isnull=False).values_list("pk", flat=True))


def hidden_files() -> set[str]:
    return set(OutputAsset.objects.filter(deletion_asked_at__isnull=False).values_list("generation_id", flat=True))


def test_what_is_too_old_goes_and_the_rest_stays(organization, keep):
    old, test, young = aged(organization, 31), aged(organization, 31, is_test=True), aged(organization, 29)
    keep(media=30)

    assert retention.enforce() == 4  # two files of each

    assert (hidden_files(), deleted_prompts()) == ({old.pk, test.pk}, set())
    keep(media=30, prompts=10)
    assert retention.enforce() == 3
    assert (hidden_files(), deleted_prompts()) == ({old.pk, test.pk}, {old.pk, test.pk, young.pk})
    assert Generation.objects.get(pk=young.pk).input["prompt"] == ""
    assert retention.enforce() == 0
    assert sorted(AuditEntry.objects.values_list("actor_name", "action", "after__deleted")) == [
        ("system", "retention.enforced", 1),
        *[("system", "retention.enforced", 2)] * 3,
    ]


def test_without_a_retention_everything_is_kept(organization, keep):
    aged(organization, 4000)
    keep()

    assert retention.enforce() == 0
    assert not RetentionMark.objects.exists()
    assert (hidden_files(), deleted_prompts()) == (set(), set())


def test_an_open_task_is_waited_for_and_goes_when_it_has_ended(organization, keep):
    before, still_open, behind = aged(organization, 33), aged(organization, 32, has_ended=False), aged(organization, 31)
    keep(prompts=30)

    assert retention.enforce() == 2
    assert deleted_prompts() == {before.pk, behind.pk}
    mark = RetentionMark.objects.get(subject="prompts", is_test=False)
    still_open.refresh_from_db()
    assert mark.until == still_open.created_at

    lifecycle.fail(public_id=still_open.pk, code=Generation.ErrorCode.GENERATION_TIMEOUT)
    assert retention.enforce() == 1
    assert deleted_prompts() == {before.pk, still_open.pk, behind.pk}


def test_it_goes_in_batches_and_goes_on_where_a_killed_one_ended(organization, keep, monkeypatch):
    tasks = [aged(organization, 40 - number) for number in range(7)]
    keep(prompts=30)
    monkeypatch.setattr(retention, "BATCH", 2)
    erase, sizes = deletion.erase_prompts, []

    def dying(public_ids):
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(len(public_ids))
        return erase(public_ids)

    with monkeypatch.context() as patched:
        patched.setitem(retention._WORK, RetentionMark.Subject.PROMPTS, dying)
        with pytest.raises(KeyboardInterrupt):
            retention.enforce()
    assert (sizes, len(deleted_prompts())) == ([2, 2], 4)
    # Each batch is told of with it, or a run that dies would have deleted in silence.
    assert list(AuditEntry.objects.values_list("after__deleted", flat=True)) == [2, 2]
    assert RetentionMark.objects.get().until == Generation.objects.get(pk=tasks[3].pk).created_at

    assert retention.enforce() == 3
    assert deleted_prompts() == {task.pk for task in tasks}


def test_many_tasks_of_one_millisecond_are_got_through(organization, keep, monkeypatch):
    tasks = [aged(organization, 40) for _ in range(5)]
    Generation.objects.update(created_at=clock.now() - dt.timedelta(days=40))
    keep(prompts=30)
    monkeypatch.setattr(retention, "BATCH", 2)

    assert retention.enforce() == 5
    assert deleted_prompts() == {task.pk for task in tasks}


def test_a_run_that_takes_too_long_leaves_the_rest_to_the_next(organization, keep, monkeypatch):
    aged(organization, 40)
    keep(prompts=30)
    monkeypatch.setattr(retention, "BUDGET_SECONDS", 0.0)
    assert retention.enforce() == 0

    monkeypatch.setattr(retention, "BUDGET_SECONDS", 60.0)
    assert retention.enforce() == 1


def test_a_night_reads_only_what_grew_too_old_since_the_last(organization, keep):
    aged(organization, 100)
    keep(prompts=30)
    retention.enforce()
    Generation.objects.update(prompt_deleted_at=None, input={"prompt": "restored from a backup"})

    assert retention.enforce() == 0
