"""People, organizations and keys for tests."""

# mypy: disable-error-code="attr-defined,no-untyped-call"

import functools
from typing import Any

import factory
from django.contrib.auth.hashers import make_password
from factory.django import DjangoModelFactory

from accounts import keys
from accounts.models import Membership, Organization, User

PASSWORD = "correct horse battery staple"


@functools.cache
def _hashed(password: str) -> str:
    return make_password(password)


class UserFactory(DjangoModelFactory[User]):
    """A person who can sign in with PASSWORD."""

    class Meta:
        model = User

    email = factory.Sequence(lambda n: f"person{n}@example.com")
    name = factory.Sequence(lambda n: f"Person {n}")

    @classmethod
    def _create(cls, model_class: type[User], *args: Any, **kwargs: Any) -> User:
        # Hashing is slow on purpose; one hash a password will do for all tests.
        password = kwargs.pop("password", PASSWORD)
        return model_class.objects.create(password=_hashed(password) if password else "!", **kwargs)


class OrganizationFactory(DjangoModelFactory[Organization]):
    """A customer without members, keys or credits."""

    class Meta:
        model = Organization

    name = factory.Sequence(lambda n: f"Organization {n}")


class MembershipFactory(DjangoModelFactory[Membership]):
    """A person in an organization, a developer unless told otherwise."""

    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    organization = factory.SubFactory(OrganizationFactory)
    role = Membership.Role.DEVELOPER


def issue_key(organization: Organization, mode: str = "live", *, name: str = "test key", **values: Any) -> str:
    """Issue a key and return its secret."""
    return keys.issue(organization=organization, name=name, mode=mode, **values).secret
