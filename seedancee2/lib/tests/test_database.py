"""A database that falls silent is given up in time."""

import time

import psycopg
import pytest
from django.db import DataError, OperationalError, connection, transaction
from psycopg.pq import TransactionStatus

from seedancee2.lib.database import PatientConnection, patience


def test_a_silent_server_is_given_up_and_the_connection_closed(db, settings):
    settings.DATABASE_PATIENCE_SECONDS = 0.2
    parameters = {
        name: connection.get_connection_params()[name] for name in ("dbname", "user", "password", "host", "port")
    }
    with PatientConnection.connect(**parameters) as patient:
        started = time.monotonic()

        with pytest.raises(psycopg.OperationalError):
            patient.execute("SELECT pg_sleep(5)")

        assert time.monotonic() - started < 2
        assert patient.closed


def test_after_one_silence_what_was_idle_must_answer_at_once(db, settings, monkeypatch):
    monkeypatch.setattr(PatientConnection, "_silence_at", 0.0)
    settings.DATABASE_PATIENCE_SECONDS = 2
    parameters = {
        name: connection.get_connection_params()[name] for name in ("dbname", "user", "password", "host", "port")
    }
    with (
        PatientConnection.connect(**parameters, autocommit=True) as idle,
        PatientConnection.connect(**parameters, autocommit=True) as busy,
        PatientConnection.connect(**parameters, autocommit=True) as silent,
    ):
        for one in (idle, busy):
            one.execute("SELECT 1")
        given_up = [one.info.backend_pid for one in (idle, silent)]
        busy.execute("BEGIN")
        with pytest.raises(psycopg.OperationalError):
            silent.execute("SELECT pg_sleep(60)")
        started = time.monotonic()

        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT pg_sleep(60)")

        assert time.monotonic() - started < 1.5
        assert idle.closed
        busy.execute("SELECT pg_sleep(0.5)")
        busy.execute("COMMIT")
        with PatientConnection.connect(**parameters, autocommit=True) as new:
            new.execute("SELECT pg_sleep(0.5)")
            new.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [given_up])


def test_an_error_of_the_server_keeps_the_connection(db):
    parameters = {
        name: connection.get_connection_params()[name] for name in ("dbname", "user", "password", "host", "port")
    }
    with PatientConnection.connect(**parameters, autocommit=True) as patient:
        patient.execute("SET statement_timeout = 50")

        with pytest.raises(psycopg.errors.QueryCanceled):
            patient.execute("SELECT pg_sleep(5)")

        assert patient.execute("SELECT 1").fetchone() == (1,)
        assert patient.pgconn.transaction_status == TransactionStatus.IDLE


def test_patience_lifts_both_limits_and_gives_them_back(db, settings):
    settings.DATABASE_PATIENCE_SECONDS = 1
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        before = cursor.fetchone()

        with patience(seconds=30):
            cursor.execute("SELECT pg_sleep(1.5)")
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("30s",)

        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == before


def test_patience_ends_with_an_error_too(db):
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        before = cursor.fetchone()
        with pytest.raises(DataError), transaction.atomic(), patience(seconds=30):
            cursor.execute("SELECT 1 / 0")

        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == before


def test_patience_still_ends(db):
    with (
        pytest.raises(OperationalError, match="statement timeout"),
        transaction.atomic(),
        patience(seconds=1),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_sleep(5)")
