"""Pages of the whole product: what it is, what it costs, what its errors mean; and the error pages, JSON below /v1."""

import dataclasses
import functools
from pathlib import Path
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from billing import rates
from billing.models import Rate
from generations import catalog, failures
from generations.models import PublicModel
from seedancee2.api.errors import InternalError, NotFound
from seedancee2.console import error_catalogue, markdown
from seedancee2.lib import clock

DOCS: Final = Path(settings.BASE_DIR) / "docs"

EXAMPLE_SECONDS: Final = (5, 10, 15)  # whose prices the price list works out


@dataclasses.dataclass(frozen=True, slots=True)
class PriceRow:
    """A model's line of the price list; a cell is None where the model lacks the resolution."""

    model: PublicModel
    cells: list[tuple[str, int | None]]


@dataclasses.dataclass(frozen=True, slots=True)
class PriceList:
    """What is in effect, and what will be."""

    resolutions: list[str]
    rows: list[PriceRow]
    announced: list[tuple[Rate, int | None]]


def price_list() -> PriceList:
    """Return the prices of the active models now, and the changes that are entered for later."""
    models = catalog.active_models()
    table = rates.table(at=clock.now())
    offered = {resolution for model in models for resolution in model.resolutions}
    resolutions = sorted(offered, key=lambda name: (len(name), name))
    rows, announced = [], []
    for model in models:
        cells: list[tuple[str, int | None]] = []
        for resolution in resolutions:
            price = table.get((model.name, resolution)) if resolution in model.resolutions else None
            cells.append((resolution, price.credits_per_second if price else None))
            before = price.credits_per_second if price else None
            for rate in price.announced if price else []:
                announced.append((rate, before))
                before = rate.credits_per_second
        rows.append(PriceRow(model, cells))
    return PriceList(resolutions, rows, sorted(announced, key=lambda change: change[0].effective_at))


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """Show what the product is."""
    return render(request, "landing.html", {"prices": price_list(), "base_url": settings.PUBLIC_BASE_URL})


@require_safe
def pricing(request: HttpRequest) -> HttpResponse:
    """Show what a second of video costs."""
    prices = price_list()
    examples = [
        (row.model.name, resolution, [(seconds, _cost(row.model, price, seconds)) for seconds in EXAMPLE_SECONDS])
        for row in prices.rows
        for resolution, price in row.cells
        if price is not None
    ]
    context = {"prices": prices, "examples": examples, "example_seconds": EXAMPLE_SECONDS}
    return render(request, "pricing.html", context)


@require_safe
def errors(request: HttpRequest) -> HttpResponse:
    """Show every error that a customer can meet, and what to do about it."""
    context = {
        "entries": error_catalogue.entries(),
        "failures": [(code.value, text, error_catalogue.FAILURES[code]) for code, text in failures.MESSAGES.items()],
    }
    return render(request, "errors.html", context)


@require_safe
def changelog(request: HttpRequest) -> HttpResponse:
    """Show what changed for customers."""
    return render(request, "document.html", {"title": "Changelog", "document": document("customer-changelog.md")})


def _cost(model: PublicModel, price: int, seconds: int) -> int | None:
    return price * seconds if model.min_duration <= seconds <= model.max_duration else None


@functools.cache
def document(name: str) -> markdown.Rendered:
    """Return one of our documents, rendered once in each process."""
    return markdown.render((DOCS / name).read_text(encoding="utf-8"))


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
