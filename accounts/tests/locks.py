"""The order in which rows are locked: what a function holds while it waits for one of them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import OperationalError, connection, connections, models, transaction

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def takes_first(act: Callable[[], object], *, first: models.Model, then: models.Model) -> bool:
    """Tell whether `act`, made to wait for one row, leaves the other one free; it is let go on afterwards."""

    def run() -> None:
        try:
            act()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as pool:
        with transaction.atomic():
            _lock(first)
            going = pool.submit(run)
            _wait()
            try:
                with transaction.atomic():
                    _lock(then, nowait=True)
            except OperationalError:
                is_free = False
            else:
                is_free = True
        going.result(timeout=10)
    return is_free


def _lock(row: models.Model, *, nowait: bool = False) -> None:
    type(row)._default_manager.select_for_update(no_key=True, nowait=nowait).get(pk=row.pk)


def _wait() -> None:
    end = time.monotonic() + 10
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            cursor.execute(_WAITING)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("Nothing waited for the row.")
