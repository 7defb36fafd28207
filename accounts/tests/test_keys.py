"""API keys: their form, and who is let in."""

import datetime as dt
import re
import zlib
from collections.abc import Callable

import pytest
import time_machine
from django.conf import LazySettings
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from accounts import clients, key_secrets, keys, organizations
from accounts.models import ApiKey, Organization
from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from seedancee2.api.errors import InvalidApiKey, InvalidRequest
from seedancee2.lib import clock

pytestmark = pytest.mark.django_db

FOREIGN = "ak-0123456789abcdef-from-another-system"


@pytest.fixture
def organization() -> Organization:
    return OrganizationFactory.create()


def key_of(secret: str) -> ApiKey:
    return ApiKey.objects.get(pk=clients.authenticate(secret).api_key_id)


def base62(number: int) -> str:
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    text = ""
    for _ in range(6):
        number, rest = divmod(number, 62)
        text = alphabet[rest] + text
    return text


@pytest.mark.parametrize("mode", ["live", "test"])
def test_a_key_has_prefix_randomness_and_a_checksum_over_both(organization: Organization, mode: str) -> None:
    issued = keys.issue(organization=organization, name=" render farm ", mode=mode)
    assert re.fullmatch(rf"sk_seedancee2_{mode}_[0-9A-Za-z]{{38}}", issued.secret)
    assert issued.secret[-6:] == base62(zlib.crc32(issued.secret[:-6].encode()))
    assert issued.key.name == "render farm"
    assert issued.key.masked == f"sk_seedancee2_{mode}_…{issued.secret[-4:]}"
    assert issued.key.is_test == (mode == "test")


def test_the_secret_is_neither_stored_nor_told_by_reprs(organization: Organization) -> None:
    issued = keys.issue(organization=organization, name="k", mode="live")
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_apikey::text FROM accounts_apikey")
        [(row,)] = cursor.fetchall()
    assert issued.secret not in row
    assert issued.secret.encode().hex() not in row
    assert issued.secret not in repr(issued)


def test_random_characters_use_the_whole_alphabet_evenly(organization: Organization) -> None:
    bodies = [key_secrets.make(ApiKey.Mode.LIVE)[19:51] for _ in range(2000)]
    assert len(set(bodies)) == 2000
    counts = dict.fromkeys(key_secrets.ALPHABET, 0)
    for character in "".join(bodies):
        counts[character] += 1
    expected = 2000 * 32 / 62
    # 62 cells with about 1,032 each: a deviation beyond a quarter has odds of less than one in a billion.
    assert all(abs(count - expected) < expected / 4 for count in counts.values())


def test_a_client_knows_what_its_key_may(organization: Organization) -> None:
    organization.create_rate_limit, organization.request_rate_limit = 10, 20
    organization.save()
    client = clients.authenticate(issue_key(organization, "test", create_rate_limit=3))
    assert client.organization_id == organization.pk
    assert client.is_test
    assert client.is_authenticated
    assert (client.create_rate_limit, client.request_rate_limit) == (3, 20)


def test_a_request_costs_one_query(
    organization: Organization, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    secret = issue_key(organization)
    clients.authenticate(secret)
    with django_assert_num_queries(1):
        clients.authenticate(secret)


def test_an_unknown_key_costs_one_query_too(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1), pytest.raises(InvalidApiKey):
        clients.authenticate(key_secrets.make(ApiKey.Mode.LIVE))


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        lambda secret: secret.replace("_live_", "_test_"),
        lambda secret: secret[:25] + ("a" if secret[25] != "a" else "b") + secret[26:],
        lambda secret: secret[:15],
        lambda secret: secret + " ",
        lambda secret: secret + "é",
        lambda secret: "",
        lambda secret: "x" * 201,
    ],
)
def test_a_malformed_key_costs_no_query(
    organization: Organization, django_assert_num_queries: DjangoAssertNumQueries, change: Callable[[str], str]
) -> None:
    secret = change(issue_key(organization))
    with django_assert_num_queries(0), pytest.raises(InvalidApiKey):
        clients.authenticate(secret)


def test_revoked_expired_suspended_and_unknown_keys_get_the_same_answer(organization: Organization) -> None:
    staff = UserFactory.create()
    refused = [key_secrets.make(ApiKey.Mode.LIVE)]
    revoked = issue_key(organization)
    keys.revoke(key=key_of(revoked), revoked_by=staff)
    refused.append(revoked)
    expiring = issue_key(organization, expires_at=clock.now() + dt.timedelta(hours=1))
    refused.append(expiring)
    suspended = OrganizationFactory.create()
    of_suspended = issue_key(suspended)
    organizations.suspend(organization=suspended, actor=staff)
    refused.append(of_suspended)

    answers = []
    with time_machine.travel(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), tick=True):
        for secret in refused:
            with (
                CaptureQueriesContext(
                    connection,
                ) as queries,
                pytest.raises(InvalidApiKey) as caught,
            ):
                clients.authenticate(secret)
            answers.append((str(caught.value), caught.value.headers, len(queries)))
    assert answers == [("API key is missing, invalid, or disabled.", {"WWW-Authenticate": "Bearer"}, 1)] * 4

    organizations.reinstate(organization=suspended, actor=staff)
    assert clients.authenticate(of_suspended)


def test_revoking_is_at_once_idempotent_and_final(organization: Organization) -> None:
    first, second = UserFactory.create(), UserFactory.create()
    secret = issue_key(organization)
    key = key_of(secret)
    once = keys.revoke(key=key, revoked_by=first)
    twice = keys.revoke(key=key, revoked_by=second)
    assert (twice.revoked_at, twice.revoked_by) == (once.revoked_at, first)
    with pytest.raises(InvalidApiKey):
        clients.authenticate(secret)
    with pytest.raises(DatabaseError, match="stays_revoked"), transaction.atomic():
        ApiKey.objects.filter(pk=key.pk).update(revoked_at=None)
    ApiKey.objects.filter(pk=key.pk).update(name="a name may still change")


def test_an_expiry_is_kept_to_the_moment(organization: Organization) -> None:
    now = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)
    with time_machine.travel(now, tick=False):
        secret = issue_key(organization, expires_at=now + dt.timedelta(seconds=10))
    with time_machine.travel(now + dt.timedelta(seconds=9.999), tick=False):
        assert clients.authenticate(secret)
    with time_machine.travel(now + dt.timedelta(seconds=10), tick=False), pytest.raises(InvalidApiKey):
        clients.authenticate(secret)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "  "},
        {"name": "x" * 81},
        {"name": "a\x00b"},
        {"mode": "production"},
        {"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
        {"create_rate_limit": 0},
    ],
)
def test_a_key_that_makes_no_sense_is_not_issued(organization: Organization, values: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(values))):
        keys.issue(**{"organization": organization, "name": "k", "mode": "live", **values})  # type: ignore[arg-type]
    assert not ApiKey.objects.exists()


def test_a_key_that_a_customer_already_has_works_once_imported(organization: Organization) -> None:
    with pytest.raises(InvalidApiKey):
        clients.authenticate(FOREIGN)
    key = keys.import_existing(organization=organization, name="old", secret=FOREIGN)
    assert (key.mode, key.is_imported, key.masked) == ("live", True, "…stem")
    assert clients.authenticate(FOREIGN).api_key_id == key.pk


def test_an_imported_key_with_our_test_prefix_is_a_test_key(organization: Organization) -> None:
    key = keys.import_existing(organization=organization, name="old", secret="sk_seedancee2_test_of-another-form")
    assert key.is_test


def test_a_key_of_our_form_moves_from_one_installation_to_another(organization: Organization) -> None:
    secret = key_secrets.make(ApiKey.Mode.TEST)
    assert keys.import_existing(organization=organization, name="moved", secret=secret).is_test
    assert clients.authenticate(secret).is_test


def test_no_key_is_imported_twice_nor_into_another_organization(organization: Organization) -> None:
    keys.import_existing(organization=organization, name="old", secret=FOREIGN)
    with pytest.raises(InvalidRequest, match="already known") as caught:
        keys.import_existing(organization=OrganizationFactory.create(), name="again", secret=FOREIGN)
    assert FOREIGN not in str(caught.value)
    with pytest.raises(InvalidRequest, match="already known"):
        keys.import_existing(organization=organization, name="again", secret=issue_key(organization))


@pytest.mark.parametrize(
    "secret",
    [
        "short",
        "x" * 201,
        "with a space in it, 16",
        "sixteen-and-an-é",
        "line\nbreak-0123456789",
        "sk_seedancee2_live_" + "a" * 38,
    ],
)
def test_a_key_of_a_wrong_form_is_not_imported(organization: Organization, secret: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keys.import_existing(organization=organization, name="old", secret=secret)
    assert secret not in str(caught.value)
    assert not ApiKey.objects.exists()


def test_use_is_noted_once_a_minute_and_costs_other_requests_nothing(
    organization: Organization, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    start = dt.datetime.now(dt.UTC).replace(microsecond=0)
    with time_machine.travel(start, tick=False) as traveller:
        secret = issue_key(organization)
        assert key_of(secret).last_used_at == start
        traveller.move_to(start + dt.timedelta(seconds=59))
        with django_assert_num_queries(1):
            clients.authenticate(secret)
        traveller.move_to(start + dt.timedelta(seconds=60))
        assert key_of(secret).last_used_at == start + dt.timedelta(seconds=60)
        # Another process has noted the use already: this one sees it in the row and writes nothing.
        clients._recent_uses.clear()
        traveller.move_to(start + dt.timedelta(seconds=100))
        with django_assert_num_queries(1):
            clients.authenticate(secret)


def test_a_note_of_use_that_fails_breaks_no_request(
    organization: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise DatabaseError("read-only")

    secret = issue_key(organization)
    monkeypatch.setattr(ApiKey.objects, "select_for_update", fail)
    assert clients.authenticate(secret)
    assert ApiKey.objects.get().last_used_at is None


def test_another_pepper_makes_every_key_unknown(organization: Organization, settings: LazySettings) -> None:
    secret = issue_key(organization)
    settings.API_KEY_PEPPER = "another"
    with pytest.raises(InvalidApiKey):
        clients.authenticate(secret)
    assert clients.authenticate(issue_key(organization))
