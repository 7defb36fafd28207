"""The console's page of an organization's settings."""

from typing import ClassVar, cast

from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib import messages
from django.forms.models import model_to_dict
from django.http import HttpRequest, HttpResponse, QueryDict

from accounts import organizations, roles
from accounts.console import ConsoleView
from accounts.forms import SettingsForm, add_problem
from seedancee2.api.errors import InvalidRequest


class SettingsView(ConsoleView):
    """What an organization decides for itself."""

    section: ClassVar[str] = "settings"
    permission: ClassVar[roles.Permission] = roles.Permission.CHANGE_SETTINGS

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form."""
        return self._page(self._form())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Change what differs."""
        form = self._form(request.POST)
        if not form.is_valid():
            return self._page(form)
        if form.cleaned_data["demands_second_factor"] and not self._has_second_factor():
            form.add_error("demands_second_factor", "Set up your own second factor first, or this would lock you out.")
            return self._page(form)
        try:
            organizations.change(
                organization=self.membership.organization,
                actor=self.user,
                **cast(organizations.Settings, form.cleaned_data),
            )
        except InvalidRequest as error:
            add_problem(form, error)
            return self._page(form)
        messages.success(request, "The settings are saved.")
        return self.to("console-settings")

    def _has_second_factor(self) -> bool:
        return self.membership.organization.demands_second_factor or is_mfa_enabled(self.user)

    def _form(self, data: QueryDict | None = None) -> SettingsForm:
        return SettingsForm(data, initial=model_to_dict(self.membership.organization))

    def _page(self, form: SettingsForm) -> HttpResponse:
        return self.page("console/settings.html", form=form, staff_email=getattr(settings, "STAFF_EMAIL", ""))
