from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Connect what happens elsewhere."""
        from accounts import account_events

        account_events.listen()
