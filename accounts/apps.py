from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Connect what happens elsewhere."""
        from accounts import account_events, console_visits, staff_sessions

        account_events.listen()
        console_visits.listen()
        staff_sessions.listen()
