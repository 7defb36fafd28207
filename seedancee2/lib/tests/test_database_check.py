"""The pool's check of a connection: skipped while the server has just answered, and made where it may have gone."""

import time

import psycopg
import pytest
from django.db import connection

from seedancee2.lib.database import PatientConnection

pytestmark = pytest.mark.django_db


@pytest.fixture
def other():
    """A connection of its own, that the test may lose."""
    parameters = connection.get_connection_params()
    parameters.pop("pool", None)
    parameters.pop("connection_class", None)
    with PatientConnection.connect(**parameters, autocommit=True) as opened:
        yield opened


def _is_asked(opened: PatientConnection) -> bool:
    before = opened._answered_at
    opened.execute("")
    return opened._answered_at > before


def test_a_connection_that_just_answered_is_not_asked_again(other):
    other.execute("SELECT 1")

    assert not _is_asked(other)


def test_a_connection_that_was_idle_is_asked(other, monkeypatch):
    other.execute("SELECT 1")
    monkeypatch.setattr(other, "_answered_at", time.monotonic() - 1.1)

    assert _is_asked(other)


def test_a_connection_is_asked_after_another_waited_in_vain(other, monkeypatch):
    other.execute("SELECT 1")
    monkeypatch.setattr(PatientConnection, "_silence_at", time.monotonic())

    assert _is_asked(other)


def test_a_connection_that_the_server_closed_is_found_at_once(other):
    pid = other.info.backend_pid
    other.execute("SELECT 1")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)

    with pytest.raises(psycopg.OperationalError):
        other.execute("")
