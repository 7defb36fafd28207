"""A database that falls silent is given up in time."""

import time

import psycopg
import pytest
from django.db import connection
from psycopg.pq import TransactionStatus

from seedancee2.lib.database import PatientConnection


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
