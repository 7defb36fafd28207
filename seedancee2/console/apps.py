from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ConsoleConfig(AppConfig):
    name = "seedancee2.console"

    def ready(self) -> None:
        from seedancee2.console import (
            checks,  # noqa: F401 - importing registers the system checks
            staff_groups,
        )

        post_migrate.connect(staff_groups.after_migrate)
