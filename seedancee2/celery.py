"""The Celery application: a messenger whose every message may be lost or repeated."""

import os
from typing import Any

import kombu
from celery import Celery
from celery.app.amqp import AMQP
from celery.signals import beat_init, setup_logging, worker_init, worker_shutting_down

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedancee2.settings")


class _Connection(kombu.Connection):
    """A connection to Redis that is tried every second; Celery would wait half a minute between two tries."""

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Connect, however long it takes."""
        return super().ensure_connection(
            *args, **{"interval_start": 1, "interval_step": 0, "interval_max": 1, **kwargs}
        )


class _Messages(AMQP):
    Connection = _Connection


app = Celery("seedancee2", amqp=_Messages)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Keep the logging that Django's settings configured; connecting is what tells Celery to leave it alone."""


@worker_init.connect
@beat_init.connect
def refuse_unsafe_start(**_: Any) -> None:
    """Refuse to start a worker or beat with unsafe settings, as the web server does."""
    from django.core.exceptions import ImproperlyConfigured

    from seedancee2.console import checks

    try:
        checks.refuse_unsafe_start()
    except ImproperlyConfigured as error:
        # Celery logs what a signal's receiver raises and goes on; only SystemExit ends the process.
        raise SystemExit(str(error)) from error


@worker_shutting_down.connect
def stop_lanes(**_: Any) -> None:
    """Let a worker that was told to stop end as soon as the rows in its hands are done."""
    from seedancee2.lib import lanes

    lanes.stop()
