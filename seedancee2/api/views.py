"""What every `/v1` view has in common: JSON only, whatever is asked for, and who called noted in the log."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, cast

import structlog
from django.conf import settings
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from seedancee2.api import ratelimits


class ApiClient(Protocol):
    """Who calls, as authentication tells it: the key, its organization and the limits set for them."""

    organization_id: int
    api_key_id: int
    create_rate_limit: int | None
    request_rate_limit: int | None


class JSONOnly(BaseContentNegotiation):
    """Takes the one parser and the one renderer: neither Accept nor `?format=` nor Content-Type chooses."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """Return the parser."""
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the renderer and its media type."""
        renderer = next(iter(renderers))
        return renderer, renderer.media_type


class PublicViewSet(ViewSet):
    """The base of every `/v1` view; its methods are mapped in `urls.py`, one by one.

    `scopes` names for each action the scope that a key needs for it.
    """

    scopes: ClassVar[Mapping[str, str]] = {}
    content_negotiation_class = JSONOnly
    metadata_class = None
    http_method_names = ["get", "post", "head"]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let the caller in within the key's rate limit, and bind the organization to the request's log lines."""
        super().initial(request, *args, **kwargs)
        client = cast("ApiClient | None", request.user)
        if client is None:  # a view that is open to everybody
            return
        structlog.contextvars.bind_contextvars(organization_id=client.organization_id)
        if self.action == "create":
            bucket, limit = "create", client.create_rate_limit or settings.RATE_LIMIT_CREATES
        else:
            bucket, limit = "request", client.request_rate_limit or settings.RATE_LIMIT_REQUESTS
        allowance = ratelimits.take(bucket=bucket, identity=client.api_key_id, per_minute=limit)
        if allowance is not None:
            self.headers.update(allowance.headers())

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Return no headers for every reply; Allow stands on 405 only."""
        return {}
