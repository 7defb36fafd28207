"""What every test shares: transactional tests leave the database as the migrations made it."""

import gc
from types import SimpleNamespace

import pytest
from _pytest.nodeid import coerce_node_id
from django.conf import settings
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connection
from django.test import TransactionTestCase
from whitenoise.middleware import WhiteNoiseMiddleware

# Rows that migrations put there. Django's own flush would remove them, and the ledger refuses TRUNCATE.
_REFERENCE_TABLES = {
    "auth_permission",
    "billing_rate",
    "django_content_type",
    "django_migrations",
    "generations_publicmodel",
    "providers_channel",
    "providers_route",
}


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Let a test wait for a connection, and idle in its transaction, for as long as a crowded machine likes."""
    options = connection.settings_dict["OPTIONS"]
    options["options"] += " -c idle_in_transaction_session_timeout=0"
    options["connect_timeout"] = 30
    options["pool"] = options["pool"] | {"timeout": 30.0}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what is marked `xdist_group` on one worker: xdist 3.8 writes the group where pytest 9.2 does not look."""
    for item in items:
        if item.get_closest_marker("chaos_long"):
            item.add_marker(pytest.mark.timeout(3600))
    if hasattr(config, "workerinput"):
        for item in items:
            for mark in item.iter_markers("xdist_group"):
                item._id = coerce_node_id(f"{item.nodeid}@{mark.args[0]}")


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later garbage collection: it stays for good."""
    gc.collect()
    gc.freeze()


def _empty_tables(self: TransactionTestCase) -> None:
    tables = [table for table in connection.introspection.table_names() if table not in _REFERENCE_TABLES]
    statements = [
        "SET session_replication_role = replica",
        "SET statement_timeout = 0",
        *(f'DELETE FROM "{table}"' for table in tables),
        "DELETE FROM providers_route WHERE traffic = 'live'",
        "DELETE FROM providers_channel WHERE name <> 'sandbox'",
        "UPDATE providers_route SET is_active = true",
        "UPDATE providers_channel SET state = 'active'",
        "SET session_replication_role = origin",
    ]
    with connection.cursor() as cursor:
        cursor.execute(";".join(statements))


@pytest.fixture(autouse=True)
def _forget_what_was_read() -> None:
    """Models and rates are read once a second, and another test may have changed them within that."""
    from billing import rates
    from generations import catalog

    catalog._by_name.cache_clear()
    rates._by_model.cache_clear()


@pytest.fixture(autouse=True, scope="session")
def _wait_for_redis() -> None:
    """On a crowded machine Redis may take longer than a request would wait, and what it should count is not counted."""
    from seedancee2.api import ratelimits

    ratelimits._TIMEOUT = 10.0
    settings.CACHES["default"]["OPTIONS"] |= {"socket_timeout": 10, "socket_connect_timeout": 10}


@pytest.fixture
def same_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no second end while statements are counted: models and rates would be read again in the middle."""
    still = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr("generations.catalog.time", still)
    monkeypatch.setattr("billing.rates.time", still)


@pytest.fixture(autouse=True, scope="session")
def _keep_reference_rows() -> None:
    TransactionTestCase._fixture_teardown = _empty_tables  # type: ignore[attr-defined] # private, and the one seam Django has


@pytest.fixture(autouse=True, scope="session")
def _list_static_files_once() -> None:
    """Every test client loads the middleware anew, and WhiteNoise would look at 250 files each time."""
    find = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, object] = {}

    def add(self: WhiteNoiseMiddleware) -> None:
        if not found:
            find(self)
            found.update(self.files)
        self.files.update(found)

    WhiteNoiseMiddleware.add_files_from_finders = add


@pytest.fixture(autouse=True, scope="session")
def _hash_passwords_fast() -> None:
    """The same algorithm with fewer rounds; a process that a test starts still reads such a hash."""
    PBKDF2PasswordHasher.iterations = 1_000
