from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"

    def ready(self) -> None:
        """Connect what happens elsewhere."""
        from accounts import signals
        from billing import welcome

        signals.organization_signed_up.connect(welcome.on_organization_signed_up)
