"""The envelope of every successful reply: `{"data": …}`, with an ETag where the client may ask whether it changed."""

import hashlib
from collections.abc import Mapping
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpResponse
from django.utils.http import parse_etags
from rest_framework.request import Request
from rest_framework.response import Response

from seedancee2.api import rendering


def data(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Wrap a reply's content."""
    return Response({"data": content}, status=status, headers=dict(headers or {}))


def next_page(request: Request, cursor: str | None) -> dict[str, str]:
    """Return the Link header that leads to a list's next page, with the filters of this one; nothing on the last."""
    if cursor is None:
        return {}
    kept = {name: request.query_params[name] for name in request.query_params if name != "cursor"}
    address = f"{settings.PUBLIC_BASE_URL}{request.path}?{urlencode({**kept, 'cursor': cursor})}"
    return {"Link": f'<{address}>; rel="next"'}


def tagged(request: Request, content: object, *, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Wrap a reply's content and tag it; 304 without a body where the client has just this already."""
    body = rendering.encode({"data": content})
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    known = parse_etags(request.META.get("HTTP_IF_NONE_MATCH", ""))
    is_known = "*" in known or tag in (candidate.removeprefix("W/") for candidate in known)
    response = HttpResponse(status=304) if is_known else HttpResponse(body, content_type="application/json")
    if is_known:
        del response.headers["Content-Type"]
    for name, value in {"ETag": tag, **(headers or {})}.items():
        response.headers[name] = value
    return response
