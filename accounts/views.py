"""Console pages that belong to no section: the way in, and the switch between organizations."""

from django.http import HttpRequest, HttpResponse

from accounts.console import SESSION_KEY, ConsoleView


class SwitchOrganizationView(ConsoleView):
    """The organization that the console shows from now on."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        """Remember the organization that the form names."""
        request.session[SESSION_KEY] = self.membership.organization_id
        return self.to("console-home")
