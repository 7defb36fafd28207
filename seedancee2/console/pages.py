"""Pages of the whole product: the landing page, and the error pages, which are JSON below /v1."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from seedancee2.api.errors import InternalError, NotFound


def landing(request: HttpRequest) -> HttpResponse:
    """Show what the product is."""
    return render(request, "landing.html")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404 in the form that the path promises."""
    if request.path.startswith("/v1"):
        return JsonResponse(NotFound().as_json(), status=404)
    return render(request, "404.html", status=404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500 in the form that the path promises."""
    if request.path.startswith("/v1"):
        return JsonResponse(InternalError().as_json(), status=500)
    return render(request, "500.html", status=500)
