"""The Celery application: a messenger whose every message may be lost or repeated."""

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, setup_logging, worker_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedancee2.settings")

app = Celery("seedancee2")
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
