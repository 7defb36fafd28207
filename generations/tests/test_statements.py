"""How many statements a transition sends: each costs a round trip, some of them while the account is locked."""

import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import keys
from billing.allowances import Allowance
from generations import lifecycle
from generations.models import Generation
from generations.specs import JobSpec
from generations.tests.callers import Caller, minimal
from generations.tests.factories import create_generation, funded_organization

pytestmark = pytest.mark.django_db

# The first words of a statement, and the table or the function.
_SHAPE = re.compile(r'(?:(SELECT) .*? FROM "?|(INSERT INTO|UPDATE) "?|(SAVEPOINT|RELEASE)\b)(\w*)', re.DOTALL)


def _shapes(queries: CaptureQueriesContext) -> list[str]:
    found = [_SHAPE.match(query["sql"]) for query in queries]
    assert all(found)
    shapes = [" ".join(filter(None, match.groups())) for match in found if match]
    return [shape for shape in shapes if not shape.startswith(("SAVEPOINT", "RELEASE"))]  # of this test's transaction


@pytest.fixture
def generation() -> Generation:
    """An open generation with a callback."""
    return create_generation(funded_organization(), callback_url="https://example.com/")


def test_a_creation_sends_three_statements_and_the_money_last(same_second):
    organization = funded_organization()
    create_generation(organization)  # which reads the models and the rates

    with CaptureQueriesContext(connection) as queries:
        create_generation(organization)

    assert _shapes(queries) == [
        "INSERT INTO generations_generation",
        "INSERT INTO providers_upstreamjob",
        "SELECT billing_reserve",
    ]


def test_a_creation_within_a_cap_sends_three_statements_too(same_second):
    organization = funded_organization()
    create_generation(organization)
    key = keys.issue(organization=organization, name="k", mode="live", monthly_credit_cap=100).key
    values = {"api_key_id": key.pk, "allowance": Allowance(api_key_id=key.pk, monthly_cap=100)}

    with CaptureQueriesContext(connection) as queries:
        spec = JobSpec(model="mini", prompt="waves", duration=4, resolution="480p")
        lifecycle.create(organization_id=organization.pk, is_test=False, spec=spec, **values)

    assert _shapes(queries) == [
        "INSERT INTO generations_generation",
        "INSERT INTO providers_upstreamjob",
        "SELECT billing_reserve_within",
    ]


@pytest.mark.parametrize(("key", "count"), [(None, 4), ("once", 6)])
def test_a_request_to_create_or_to_read_sends_few_statements(same_second, key, count):
    caller = Caller(funded_organization())
    caller.create(minimal())  # which reads the models and the rates, and notes the key's use
    headers = {"idempotency_key": key} if key else {}

    with CaptureQueriesContext(connection) as queries:
        created = caller.create(minimal(), **headers)
    assert created.status_code == 201
    assert _count(queries) == count

    with CaptureQueriesContext(connection) as queries:
        assert caller.get(created.headers["Location"]).status_code == 200
    assert _count(queries) == 2  # the key, and the task with its files


def _count(queries: CaptureQueriesContext) -> int:
    return sum(not query["sql"].startswith(("SAVEPOINT", "RELEASE")) for query in queries)


def test_a_completion_captures_in_one_statement(generation):
    with CaptureQueriesContext(connection) as queries:
        lifecycle.complete(public_id=generation.pk, assets=[])

    assert _shapes(queries) == [
        "SELECT generations_generation",
        "UPDATE generations_generation",
        "SELECT billing_close",
        "SELECT webhooks_delivery",
        "INSERT INTO webhooks_delivery",
    ]


def test_a_failure_releases_in_one_statement(generation):
    with CaptureQueriesContext(connection) as queries:
        lifecycle.fail(public_id=generation.pk, code=Generation.ErrorCode.GENERATION_FAILED)

    assert _shapes(queries) == [
        "SELECT generations_generation",
        "UPDATE generations_generation",
        "SELECT billing_close",
        "SELECT webhooks_delivery",
        "INSERT INTO webhooks_delivery",
    ]
