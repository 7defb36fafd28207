"""Webhook signatures as the public page describes them ("Webhooks")."""

import hashlib
import hmac
from collections.abc import Sequence


def signature_header(*, body: bytes, timestamp: int, secrets: Sequence[str]) -> str:
    """Build `X-Seedancee2-Signature` for the exact bytes sent; several secrets give several `v1`, in their order.

    `timestamp` is in unix seconds; the HMAC-SHA256 key is the whole secret's UTF-8 bytes.
    """
    payload = str(timestamp).encode() + b"." + body
    digests = (hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={timestamp}", *(f"v1={digest}" for digest in digests)])
