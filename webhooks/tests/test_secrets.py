"""Signing secrets: made on demand, sealed, rotated with an overlap."""

import datetime as dt
import re
import threading

import pytest
import time_machine
from django.db import connection

from accounts.tests.factories import OrganizationFactory
from webhooks import pruning, secrets
from webhooks.models import SigningSecret

pytestmark = pytest.mark.django_db


def test_the_first_secret_is_made_on_demand_and_stays() -> None:
    organization = OrganizationFactory.create()

    secret = secrets.current(organization_id=organization.pk)

    assert re.fullmatch(r"whsec_[A-Za-z0-9]{40}", secret)
    assert secrets.current(organization_id=organization.pk) == secret
    assert secrets.active(organization_id=organization.pk) == [secret]


def test_each_organization_has_its_own() -> None:
    first, second = OrganizationFactory.create(), OrganizationFactory.create()

    assert secrets.current(organization_id=first.pk) != secrets.current(organization_id=second.pk)


def test_the_database_holds_no_secret_in_clear() -> None:
    organization = OrganizationFactory.create()

    secret = secrets.current(organization_id=organization.pk)

    assert secret.encode() not in bytes(SigningSecret.objects.get().sealed_secret)


def test_rotation_signs_with_both_until_the_overlap_ends() -> None:
    organization = OrganizationFactory.create()
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        old = secrets.current(organization_id=organization.pk)
        new = secrets.rotate(organization_id=organization.pk, overlap_seconds=3600)

        assert secrets.active(organization_id=organization.pk) == [new, old]
        assert secrets.current(organization_id=organization.pk) == new

        traveller.shift(dt.timedelta(seconds=3599))
        assert secrets.active(organization_id=organization.pk) == [new, old]
        traveller.shift(dt.timedelta(seconds=1))
        assert secrets.active(organization_id=organization.pk) == [new]


def test_rotation_without_overlap_retires_every_older_secret() -> None:
    organization = OrganizationFactory.create()
    secrets.current(organization_id=organization.pk)
    secrets.rotate(organization_id=organization.pk)

    newest = secrets.rotate(organization_id=organization.pk, overlap_seconds=0)

    assert secrets.active(organization_id=organization.pk) == [newest]


def test_a_later_rotation_does_not_lengthen_an_overlap() -> None:
    organization = OrganizationFactory.create()
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        secrets.current(organization_id=organization.pk)
        second = secrets.rotate(organization_id=organization.pk, overlap_seconds=60)
        third = secrets.rotate(organization_id=organization.pk, overlap_seconds=3600)

        traveller.shift(dt.timedelta(seconds=61))
        assert secrets.active(organization_id=organization.pk) == [third, second]


@pytest.mark.parametrize("seconds", [1, 60, secrets.LONGEST_OVERLAP_SECONDS])
def test_an_overlap_is_theirs_to_choose(seconds: int) -> None:
    organization = OrganizationFactory.create()
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        old = secrets.current(organization_id=organization.pk)
        new = secrets.rotate(organization_id=organization.pk, overlap_seconds=seconds)

        traveller.shift(dt.timedelta(seconds=seconds - 1))
        assert secrets.active(organization_id=organization.pk) == [new, old]
        traveller.shift(dt.timedelta(seconds=1))
        assert secrets.active(organization_id=organization.pk) == [new]


@pytest.mark.parametrize("seconds", [-1, secrets.LONGEST_OVERLAP_SECONDS + 1, 10**12])
def test_an_overlap_out_of_bounds_changes_nothing(seconds: int) -> None:
    organization = OrganizationFactory.create()
    secret = secrets.current(organization_id=organization.pk)

    with pytest.raises(secrets.BadOverlap) as refused:
        secrets.rotate(organization_id=organization.pk, overlap_seconds=seconds)

    assert str(refused.value) == f"The overlap must be 0 to 604800 seconds (7 days); {seconds} is not."
    assert secrets.active(organization_id=organization.pk) == [secret]
    assert SigningSecret.objects.count() == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_first_uses_and_rotations_at_once_leave_one_current_secret() -> None:
    organization = OrganizationFactory.create()
    start = threading.Barrier(8)
    seen: list[str] = []
    errors: list[Exception] = []

    def use(is_rotation: bool) -> None:
        try:
            start.wait()
            if is_rotation:
                secrets.rotate(organization_id=organization.pk)
            else:
                seen.append(secrets.current(organization_id=organization.pk))
        except Exception as error:  # noqa: BLE001 - told by the assertion
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=use, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert SigningSecret.objects.filter(retires_at=None).count() == 1
    assert secrets.current(organization_id=organization.pk) == secrets.active(organization_id=organization.pk)[0]
    assert set(seen) <= set(secrets.active(organization_id=organization.pk))


def test_no_more_than_five_secrets_sign_at_once_and_retired_ones_are_deleted() -> None:
    organization_id = OrganizationFactory.create().pk
    with time_machine.travel("2026-06-29T10:00:00Z", tick=False) as traveller:
        secrets.current(organization_id=organization_id)
        for _ in range(4):
            secrets.rotate(organization_id=organization_id)
        known = secrets.active(organization_id=organization_id)
        assert len(known) == 5

        with pytest.raises(secrets.BadOverlap, match="5 secrets sign already"):
            secrets.rotate(organization_id=organization_id, overlap_seconds=1)

        assert secrets.active(organization_id=organization_id) == known
        newest = secrets.rotate(organization_id=organization_id, overlap_seconds=0)
        assert secrets.active(organization_id=organization_id) == [newest]
        traveller.shift(pruning.SECRETS_KEPT_FOR)
        assert (pruning.prune(), SigningSecret.objects.count()) == (0, 6)
        traveller.shift(1)
        assert (pruning.prune(), SigningSecret.objects.count()) == (5, 1)
        assert secrets.active(organization_id=organization_id) == [newest]
