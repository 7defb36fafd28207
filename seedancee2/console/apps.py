from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "seedancee2.console"

    def ready(self) -> None:
        from seedancee2.console import checks  # noqa: F401 - importing registers the system checks
