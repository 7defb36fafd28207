"""The settings of the system that is hurt: those of every other, and the app that makes its provider unreliable."""

import os

from seedancee2.settings import *  # noqa: F403
from seedancee2.settings import CELERY_BEAT_SCHEDULE, DATABASE_PATIENCE_SECONDS, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos"]
if "CHAOS_HASTE" in os.environ:
    DATABASE_PATIENCE_SECONDS = min(DATABASE_PATIENCE_SECONDS, 8.0)
CELERY_BEAT_SCHEDULE = CELERY_BEAT_SCHEDULE | {
    "canary": {"task": "chaos.canary", "schedule": 1.0, "kwargs": {"name": "beat"}, "options": {"expires": 3}},
}
