"""How replies become bytes: compact JSON in UTF-8, the same for replies and webhooks."""

import json
from collections.abc import Mapping
from typing import Any

from rest_framework import renderers


def encode(data: object) -> bytes:
    """Write JSON without spaces, with every character as itself."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class JSONRenderer(renderers.JSONRenderer):
    """The only renderer of `/v1`: no HTML, no indentation on request."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body; nothing at all where there is no data (304)."""
        return b"" if data is None else encode(data)
