"""The customers' documentation: one Markdown source (docs/customers.md), served as a page and as it is."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import conditional_page, require_safe

from seedancee2.console import markdown

SOURCE: Final = Path(settings.BASE_DIR) / "docs" / "customers.md"

# The host that the source is written with; each installation shows its own.
PLACEHOLDER: Final = "https://api.seedancee2.ai"

# Everything comes from this host, and nothing inline runs. The readers of the OpenAPI document need a little more:
# both write style elements as they draw and carry pictures in their own files; the first searches in a worker.
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
_READER_POLICY: Final = _POLICY | {"style-src": "'self' 'unsafe-inline'", "img-src": "'self' data:"}
_REFERENCE_POLICY: Final = _READER_POLICY | {"worker-src": "blob:"}

_View = Callable[[HttpRequest], HttpResponse]


@functools.cache
def source(base_url: str) -> str:
    """Return the Markdown with the addresses of this installation in its examples."""
    return SOURCE.read_text().replace(PLACEHOLDER, base_url)


@functools.cache
def document(base_url: str) -> markdown.Rendered:
    """Return the page's content; rendered once in each process."""
    return markdown.render(source(base_url))


def _headers(cache_control: str, policy: dict[str, str] | None = None) -> Callable[[_View], _View]:
    def decorate(view: _View) -> _View:
        @functools.wraps(view)
        def inner(request: HttpRequest) -> HttpResponse:
            response = view(request)
            response.headers["Cache-Control"] = cache_control
            if policy is not None:
                response.headers["Content-Security-Policy"] = "; ".join(f"{key} {policy[key]}" for key in policy)
            return response

        return inner

    return decorate


# The pages show who is signed in, so that a browser may keep them but must ask whether they still hold.
_page = "private, no-cache"
_file = "public, max-age=300"


@require_safe
@conditional_page
@_headers(_page, _POLICY)
def docs(request: HttpRequest) -> HttpResponse:
    """Show the documentation."""
    return render(request, "docs.html", {"document": document(settings.PUBLIC_BASE_URL)})


@require_safe
@conditional_page
@_headers(_file)
def docs_markdown(request: HttpRequest) -> HttpResponse:
    """Serve the documentation as Markdown."""
    return HttpResponse(source(settings.PUBLIC_BASE_URL), content_type="text/markdown; charset=utf-8")


@require_safe
@conditional_page
@_headers(_file)
def llms(request: HttpRequest) -> HttpResponse:
    """Tell language models where to read (llmstxt.org)."""
    context = {"base_url": settings.PUBLIC_BASE_URL}
    return render(request, "llms.txt", context, content_type="text/plain; charset=utf-8")


@require_safe
@conditional_page
@_headers(_page, _REFERENCE_POLICY)
def reference(request: HttpRequest) -> HttpResponse:
    """Show the OpenAPI document for reading."""
    return render(request, "docs_reference.html")


@require_safe
@conditional_page
@_headers(_page, _READER_POLICY)
def try_it(request: HttpRequest) -> HttpResponse:
    """Show the OpenAPI document with calls to send from the browser."""
    return render(request, "docs_try.html")
