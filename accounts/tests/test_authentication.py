"""The headers in which a key may come."""

import pytest
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from accounts.authentication import ApiKeyAuthentication
from accounts.clients import Client
from accounts.tests.factories import OrganizationFactory, UserFactory, issue_key
from seedancee2.api.errors import InvalidApiKey

pytestmark = pytest.mark.django_db


def client_of(**headers: str) -> Client:
    request = Request(APIRequestFactory().get("/v1/models", headers=headers), authenticators=[ApiKeyAuthentication()])
    client: object = request.user
    assert isinstance(client, Client)
    return client


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_a_bearer_token_is_taken(form: str) -> None:
    organization = OrganizationFactory.create()
    secret = issue_key(organization)
    assert client_of(authorization=form.format(secret)).organization_id == organization.pk


def test_the_other_header_is_taken_and_both_may_be_sent() -> None:
    organization = OrganizationFactory.create()
    secret = issue_key(organization)
    assert client_of(**{"x-api-key": secret}).organization_id == organization.pk
    assert client_of(**{"x-api-key": secret, "authorization": f"Bearer {secret}"}).organization_id == organization.pk


def test_two_good_keys_that_differ_are_refused() -> None:
    organization = OrganizationFactory.create()
    with pytest.raises(InvalidApiKey):
        client_of(**{"x-api-key": issue_key(organization), "authorization": f"Bearer {issue_key(organization)}"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic {}"},
        {"authorization": "{}"},
        {"authorization": "Bearer {} {}"},
        {"authorization": "Bearer {},Bearer {}"},
        {"authorization": "Bearer é{}"},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": "{}"},
        {"authorization": "Bearer {}", "x-api-key": ""},
        {"x-api-key": ""},
        {"x-api-key": "Bearer {}"},
    ],
)
def test_missing_and_malformed_headers_are_refused(headers: dict[str, str]) -> None:
    secret = issue_key(OrganizationFactory.create())
    with pytest.raises(InvalidApiKey) as caught:
        client_of(**{name: value.replace("{}", secret) for name, value in headers.items()})
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    assert caught.value.status == 401


def test_a_session_counts_for_nothing() -> None:
    request = APIRequestFactory().get("/v1/models")
    request.user = UserFactory.create(is_superuser=True)
    with pytest.raises(InvalidApiKey):
        _ = Request(request, authenticators=[ApiKeyAuthentication()]).user


def test_the_scheme_is_named_for_the_challenge() -> None:
    request = Request(APIRequestFactory().get("/v1/models"))
    assert ApiKeyAuthentication().authenticate_header(request) == "Bearer"
