"""Is the process up, and is the whole system ready?"""

from collections.abc import Callable

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.utils.crypto import constant_time_compare
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from seedancee2.console.alarms import PARTS, Alarms
from seedancee2.lib import heartbeats, metrics

# Apart from the process's own figures: these are of the whole system, whichever process is asked.
_alarms = CollectorRegistry()
_alarms.register(Alarms())


def alive(request: HttpRequest) -> JsonResponse:
    """Tell that this process answers."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> JsonResponse:
    """Tell what is missing for the system to do its work: 200 with nothing, else 503 with each part named."""
    missing: dict[str, str] = {}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        missing["database"] = "PostgreSQL does not answer; check DATABASE_URL and the server."
    try:
        for part, age in heartbeats.ages(PARTS).items():
            if age is None:
                missing[part] = f"No {part} process has been seen yet."
            elif age > heartbeats.FRESH_SECONDS:
                missing[part] = f"The {part} process was last seen {age:.0f} seconds ago."
    except redis.RedisError:
        missing["broker"] = "Redis does not answer; check REDIS_URL and the server."
    status = "ok" if not missing else "unready"
    response = JsonResponse({"status": status, "missing": missing}, status=200 if not missing else 503)
    response._has_been_logged = True  # type: ignore[attr-defined] # Django would write an error for each look
    return response


def figures(request: HttpRequest) -> HttpResponse:
    """Give Prometheus its figures, to whoever has the token."""
    sent = request.headers.get("Authorization", "")
    has_token = bool(settings.METRICS_TOKEN) and constant_time_compare(sent, f"Bearer {settings.METRICS_TOKEN}")
    if not (has_token or settings.LOCAL_MODE):
        raise Http404
    return HttpResponse(metrics.exposed() + generate_latest(_alarms), content_type=CONTENT_TYPE_LATEST)


class HealthMiddleware:
    """Answers /healthz whatever the Host header says: a load balancer asks by address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request."""
        return alive(request) if request.path == "/healthz" else self.get_response(request)
