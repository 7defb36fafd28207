"""Addresses of the admin that name a row: those that no row can have lead to no view, since a database refuses them."""

from collections.abc import Callable
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import Field, OneToOneField
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

PREFIX: Final = "/admin/"


class StaffAddressMiddleware:
    """Answers 404 where the number or name of a row is none that its table could hold."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve the request."""
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: tuple[Any, ...], names: dict[str, Any]) -> None:
        """Look at the id before any view or permission asks the database for it."""
        if not request.path_info.startswith(PREFIX):
            return
        number = names.get("object_id", names.get("id"))
        if "\x00" in request.path_info or (isinstance(number, str) and not _is_possible(request.path_info, number)):
            raise Http404


def _is_possible(path: str, number: str) -> bool:
    app_label, model_name, *_ = path.removeprefix(PREFIX).split("/")
    try:
        key: Field[Any, Any] = apps.get_model(app_label, model_name)._meta.pk
        while isinstance(key, OneToOneField):
            key = key.target_field
        key.run_validators(key.to_python(number))
    except LookupError:  # a page of another kind, which no model has
        return True
    except ValidationError:
        return False
    return True
