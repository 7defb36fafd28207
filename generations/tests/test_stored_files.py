"""Which stored files a look asks for: the newest, those missed before, or all of them."""

from pathlib import Path

import pytest
from django.core.files.storage import default_storage

from billing.models import Finding
from billing.reconciliation import BEGINNING
from generations import reconciliation
from generations.models import Generation, OutputAsset
from generations.tests.factories import create_generation, funded_organization
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def files(settings, tmp_path, monkeypatch) -> list[OutputAsset]:
    """Three files, of which a look asks for the newest one only."""
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    monkeypatch.setattr(reconciliation, "MAX_FILES", 1)
    generation = create_generation(funded_organization(), is_test=True)
    Generation.objects.update(status="completed", finished_at=clock.now())
    made = []
    for kind in ("video", "thumbnail", "last_frame"):
        (tmp_path / kind).write_bytes(b"four")
        made.append(
            OutputAsset.objects.create(generation=generation, kind=kind, path=kind, size_bytes=4, sha256="0" * 64)
        )
    assert reconciliation.discrepancies(is_every_file=True) == []
    return made


def _found(**options) -> list[str]:
    return [item.subject for item in reconciliation.report(since=BEGINNING, **options)]


def test_the_newest_are_asked_for_unless_all_are_wanted():
    default_storage.delete("video")

    assert _found() == []
    assert _found(is_every_file=True) == ["file video"]


def test_one_that_was_missed_once_is_asked_for_until_it_is_back(tmp_path):
    default_storage.delete("thumbnail")
    assert _found(is_every_file=True) == ["file thumbnail"]

    assert _found() == ["file thumbnail"]
    assert Finding.objects.filter(resolved_at=None).count() == 1

    Path(tmp_path, "thumbnail").write_bytes(b"four")
    assert _found() == []
    assert Finding.objects.filter(resolved_at=None).count() == 0
