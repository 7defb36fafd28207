"""Where providers call back. The token in the address is the key; nothing here says whether a job exists."""

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from webhooks import callbacks


@csrf_exempt
@require_POST
def receive_callback(request: HttpRequest, channel: str, token: str) -> HttpResponse:
    """Take one callback of a provider."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length[:19]) > callbacks.MAX_BODY_BYTES:
        return JsonResponse({"detail": "The body is too large."}, status=413)
    try:
        body = request.body
    except (RequestDataTooBig, OSError):
        return JsonResponse({"detail": "The body could not be read."}, status=400)
    headers = {name.lower(): value for name, value in request.headers.items()}
    outcome = callbacks.receive(channel_name=channel, token=token, headers=headers, body=body)
    return JsonResponse({"detail": outcome.name.lower()}, status=outcome.value)
