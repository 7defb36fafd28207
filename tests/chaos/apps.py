"""What makes a copy of the system the one that is hurt: an unreliable provider, and in the short form haste."""

import datetime as dt
import os

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Only in the settings of `tests.chaos`; production knows nothing of it."""

    name = "tests.chaos"

    def ready(self) -> None:
        """Put the unreliable provider in the place of the sandbox."""
        from generations import runner
        from providers import adapters, claims, submissions
        from webhooks import delivery

        adapters.ADAPTERS["sandbox"] = "tests.chaos.provider.UnreliableAdapter"
        if "CHAOS_HASTE" in os.environ:
            submissions.GRACE = dt.timedelta(seconds=6)
            claims.LEASE = dt.timedelta(seconds=12)
            runner.RETRY_PAUSE = dt.timedelta(seconds=1)
            delivery.LEASE = dt.timedelta(seconds=30)  # type: ignore[misc] # final for production
