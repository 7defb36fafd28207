"""fal.ai's queue for the Seedance 2 family (fal sheet): signed webhooks, no list, and ends that only results tell.

A route's upstream model is an endpoint without its last part (`bytedance/seedance-2.0/fast`): which of text-to-video,
image-to-video and reference-to-video it is follows from the request. There is no seed, watermark or last frame.

Options of a channel:
    jwks_url ("https://rest.fal.ai/.well-known/jwks.json"): where the keys are that webhooks are signed with.
    user_id (""): the account that webhooks must name; empty for any.
    start_seconds (1800): how long a request may wait there for its start, and then ends without a charge; above 1.
    file_seconds (604800): how long outputs are kept there.
    bitrate_mode ("standard"): what pro and fast are asked for, `standard` or `high`; empty leaves it out.
"""

import base64
import datetime as dt
import functools
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from providers.adapters import fal_errors, prompts
from providers.adapters.base import (
    Accepted,
    Callback,
    Cancellation,
    Capabilities,
    ErrorClass,
    Failed,
    Forged,
    Hint,
    JobRequest,
    Pending,
    Progress,
    Reason,
    Ref,
    Refused,
    Running,
    Submission,
    Succeeded,
    Ticket,
    Unknown,
    Unreadable,
)
from providers.adapters.wire import Answer, HttpAdapter, redacted
from seedancee2.lib import http

JWKS_URL: Final = "https://rest.fal.ai/.well-known/jwks.json"
KEYS_SECONDS: Final = 24 * 3600.0
NEW_KEYS_SECONDS: Final = 60.0  # that keys which fit no signature must be old before others are fetched
KEYS_PAUSE_SECONDS: Final = 5.0  # between two tries to fetch keys where there are none
KEYS_DEADLINE_SECONDS: Final = 5.0  # the provider waits 15 for an answer to its webhook
MAX_KEYS_BYTES: Final = 64 * 1024
CALLBACK_WINDOW_SECONDS: Final = 300
MAX_DETAIL: Final = 500

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_URL = re.compile(r"https?://[A-Za-z0-9._-]+(?::[0-9]{1,5})?(?:[/?][^\x00-\x20\x7f\ud800-\udfff]*)?")
_ENDINGS: Final = {"status": "/status", "response": "", "cancel": "/cancel"}
# What a key may do there is told in prose alone; the other refusals with 403 lock the whole account.
_ACCESS = re.compile(r"\baccess\b.{0,40}\b(app|application|model|endpoint)\b", re.IGNORECASE)
# Answers to our asking that say nothing about the request that was asked for.
_NO_ENDS: Final = frozenset({401, 403, 404, 408, 429})


class FalAdapter(HttpAdapter):
    """Speaks to fal, at the addresses that it gave for each request."""

    name = "fal"
    capabilities = Capabilities(
        resolutions={
            "pro": frozenset({"480p", "720p", "1080p"}),
            "fast": frozenset({"480p", "720p"}),
            "mini": frozenset({"480p", "720p"}),
        },
        image_formats=frozenset({"jpg", "jpeg", "png", "webp"}),
        max_files=12,
    )
    own_output_hosts = ("*.fal.media",)

    def authorization(self) -> str:
        """Return the Authorization header, in the provider's own scheme."""
        return f"Key {self.access.credential}"

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Put a request into the queue, once."""
        if request.audio_urls and not (request.image_urls or request.video_urls):
            return Refused(ErrorClass.CUSTOMER_INPUT, "Audio cannot be the only reference.", Reason.AUDIO_ALONE)
        query = [("fal_webhook", ticket.callback_url)] if ticket.callback_url else []
        url = self.url(f"/{upstream_model}/{_form(request)}", query)
        answer = self.post(url, self._input(request, upstream_model), headers=self._queue_headers())
        if not isinstance(answer, Answer):
            return answer
        status_code, upstream_id = answer.status_code, answer.field("request_id")
        if 200 <= status_code < 300:
            if not (isinstance(upstream_id, str) and _ID.fullmatch(upstream_id)):
                return Unknown(f"HTTP {status_code} without the id of a request.")
            found = {name: self._own(answer.field(f"{name}_url")) for name in _ENDINGS}
            return Accepted(upstream_id, {name: address for name, address in found.items() if address})
        said, detail = fal_errors.read(answer.data, answer.headers), _detail(answer)
        # A refusal names no request, and a server's own error may come after the fact.
        if upstream_id or not 400 <= status_code < 500 or status_code in fal_errors.TIMEOUTS:
            return Unknown(detail)
        error_class = fal_errors.GATEWAY.get(status_code, said.error_class)
        is_model_only = status_code == 403 and bool(_ACCESS.search(said.message))
        return Refused(error_class, detail, retry_after=answer.retry_after, is_model_only=is_model_only)

    def fetch(self, ref: Ref) -> Progress:
        """Ask how far a request is, and for its result once it has ended: only that tells how it ended."""
        answer = self.ask("fetch", self._address(ref, "status"))
        if isinstance(answer, Unreadable):
            return answer
        if not 200 <= answer.status_code < 300:
            return Unreadable(_detail(answer))
        if answer.field("request_id") != ref.upstream_id:
            return Unreadable("The answer is about another request.")
        match answer.field("status"):
            case "IN_QUEUE":
                return Pending()
            case "IN_PROGRESS":
                return Running()
            case "COMPLETED":
                outcome = self._result(ref, answer)
                # The platform's own failures stand here too, should their result be no more to be had.
                if isinstance(outcome, Unreadable) and (answer.field("error") or answer.field("error_type")):
                    return _failure(answer)
                return outcome
        return Unreadable(f"The status {str(answer.field('status'))[:100]!r} is not documented.", is_new=True)

    def cancel(self, ref: Ref) -> Cancellation:
        """Ask for an end; only one that still waits is certainly taken out (fal sheet §6)."""
        answer = self.ask("cancel", self._address(ref, "cancel"), method="PUT")
        if isinstance(answer, Unreadable):
            return Cancellation.MAYBE
        match answer.status_code, answer.field("status"):
            case 200, "OK":
                return Cancellation.DONE
            case 400, "ALREADY_COMPLETED":
                return Cancellation.TOO_LATE
        return Cancellation.MAYBE

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime) -> Callback:
        """Check the signature over the raw body, and say which request it names (fal sheet §7)."""
        names = ("request-id", "user-id", "timestamp", "signature")
        upstream_id, user_id, timestamp, signature = (headers.get(f"x-fal-webhook-{name}", "") for name in names)
        if not (upstream_id and user_id and timestamp and signature):
            return Forged("The callback is not signed.")
        if not _TIMESTAMP.fullmatch(timestamp):
            return Forged("The callback's timestamp is no number.")
        if abs(received_at.timestamp() - int(timestamp)) > CALLBACK_WINDOW_SECONDS:
            return Forged("The callback's signature is too old, or from the future.")
        if not _SIGNATURE.fullmatch(signature):
            return Forged("The callback's signature is none.")
        message = "\n".join((upstream_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        keys = keys_at(str(self.access.options.get("jwks_url", JWKS_URL)))
        try:
            is_signed = keys.have_signed(message.encode(errors="replace"), bytes.fromhex(signature))
        except KeysUnavailable as error:
            return Forged(f"The keys could not be fetched: {error}.")
        if not is_signed:
            return Forged("The callback's signature is wrong.")
        own_id = str(self.access.options.get("user_id", ""))
        if own_id and not hmac.compare_digest(own_id.encode(), user_id.encode(errors="replace")):
            return Forged("The callback is for another account.")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        if not (isinstance(data, dict) and data.get("request_id") == upstream_id and _ID.fullmatch(upstream_id)):
            return Forged("The callback's body does not name the request that was signed.")
        return Hint(upstream_id, is_verified=True)

    def _input(self, request: JobRequest, upstream_model: str) -> dict[str, Any]:
        media = {
            "image_url": request.first_frame_url,
            "end_image_url": request.last_frame_url,
            "image_urls": list(request.image_urls),
            "video_urls": list(request.video_urls),
            "audio_urls": list(request.audio_urls),
        }
        # Absent from mini's schema (fal sheet §2).
        bitrate = "" if upstream_model.endswith("/mini") else self.access.options.get("bitrate_mode", "standard")
        return {
            "prompt": prompts.rewrite(request, tag="@{kind}{number}"),
            **{key: value for key, value in media.items() if value},
            "resolution": request.resolution,
            "duration": str(request.duration),
            "aspect_ratio": "auto" if request.aspect_ratio == "adaptive" else request.aspect_ratio,
            "generate_audio": request.generate_audio,
            **({"bitrate_mode": bitrate} if bitrate else {}),
        }

    def _queue_headers(self) -> dict[str, str]:
        lifetime = {"expiration_duration_seconds": int(self.access.options.get("file_seconds", 604_800))}
        return {
            "X-Fal-Request-Timeout": str(int(self.access.options.get("start_seconds", 1800))),
            "X-Fal-Object-Lifecycle-Preference": json.dumps(lifetime),
        }

    def _own(self, url: Any) -> str:
        """Return an address that came with an answer if it may get our key, else nothing."""
        return url if isinstance(url, str) and _URL.fullmatch(url) and self.is_own(url) else ""

    def _address(self, ref: Ref, verb: str, offered: Any = "") -> str:
        """Return the address that came with the id, or with a later answer, or else one built as they are."""
        app = "/".join(ref.upstream_model.split("/")[:2])
        built = f"/{app}/requests/{quote(ref.upstream_id, safe='')}{_ENDINGS[verb]}"
        return self._own(ref.urls.get(verb)) or self._own(offered) or self.url(built)

    def _result(self, ref: Ref, status: Answer) -> Progress:
        answer = self.ask("fetch", self._address(ref, "response", status.field("response_url")))
        if isinstance(answer, Unreadable):
            return answer
        if answer.status_code == 200:
            return _success(answer, status)
        said, status_code = fal_errors.read(answer.data, answer.headers), answer.status_code
        if status_code == 400 and "still in progress" in said.message.lower():
            return Running()
        if status_code < 400 or status_code in _NO_ENDS:
            return Unreadable(_detail(answer))
        # What the model said, and any 422, is the request's own end. Anything else might be about our asking, and a
        # request that is believed to have failed is paid for a second time: it must be typed and name the request.
        if not (said.is_of_model or status_code == 422):
            if not said.kind:
                return Unreadable(_detail(answer), is_new=status_code < 500)
            if answer.headers.get("x-fal-request-id") != ref.upstream_id:
                return Unreadable(_detail(answer))
        return _failure(answer)


class KeysUnavailable(Exception):
    """There are no keys to check a signature with; the text says why, as the end of a sentence."""


class SigningKeys:
    """The public keys of one address, kept for all threads of this process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: Sequence[Ed25519PublicKey] = ()
        self._fetched_at = self._tried_at = float("-inf")
        self._failure = ""
        self._lock = threading.Lock()

    def have_signed(self, message: bytes, signature: bytes) -> bool:
        """Tell whether any key signed a message; where none did, younger keys are asked for.

        Raises:
            KeysUnavailable: they could not be fetched.
        """
        return any(
            _has_signed(key, message, signature)
            for seconds in (KEYS_SECONDS, NEW_KEYS_SECONDS)
            for key in self._younger_than(seconds)
        )

    def _younger_than(self, seconds: float) -> Sequence[Ed25519PublicKey]:
        # Held while fetching: others wait for these keys instead of fetching their own.
        with self._lock:
            now = monotonic()
            if now - self._fetched_at > KEYS_SECONDS:
                self._keys = ()
            pause = NEW_KEYS_SECONDS if self._keys else KEYS_PAUSE_SECONDS
            if now - self._fetched_at > seconds and now - self._tried_at > pause:
                try:
                    self._keys, self._fetched_at = _fetched_keys(self._url), monotonic()
                except KeysUnavailable as error:
                    self._failure = str(error)
                self._tried_at = monotonic()
            if not self._keys:
                raise KeysUnavailable(self._failure)
            return self._keys


@functools.lru_cache(maxsize=64)
def keys_at(url: str) -> SigningKeys:
    """Return the keys that are published at an address."""
    return SigningKeys(url)


def _fetched_keys(url: str) -> Sequence[Ed25519PublicKey]:
    try:
        reply = http.send("GET", url, deadline_seconds=KEYS_DEADLINE_SECONDS, max_response_bytes=MAX_KEYS_BYTES)
    except http.Blocked as error:
        raise KeysUnavailable(error.reason) from error
    except http.TransportFailed as error:
        raise KeysUnavailable(str(error.kind)) from error
    if reply.status_code != 200:
        raise KeysUnavailable(f"HTTP {reply.status_code}")
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    entries = found.get("keys") if isinstance(found, dict) else None
    keys = [key for key in map(_key, entries if isinstance(entries, list) else ()) if key is not None]
    if not keys:
        raise KeysUnavailable("the answer holds no key")
    return keys


def _key(entry: Any) -> Ed25519PublicKey | None:
    text = entry.get("x") if isinstance(entry, dict) and entry.get("crv", "Ed25519") == "Ed25519" else None
    if not isinstance(text, str):
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return None


def _has_signed(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _form(request: JobRequest) -> str:
    if request.first_frame_url or request.last_frame_url:
        return "image-to-video"
    has_references = request.image_urls or request.video_urls or request.audio_urls
    return "reference-to-video" if has_references else "text-to-video"


def _success(answer: Answer, status: Answer) -> Succeeded | Unreadable:
    url = answer.field("video", "url")
    if not (isinstance(url, str) and _URL.fullmatch(url)):
        return Unreadable("The request succeeded without a video URL.", is_done=True)
    numbers = {
        "seed": answer.field("seed"),
        "inference_seconds": status.field("metrics", "inference_time"),
        "billable_units": _number(answer.headers.get("X-Fal-Billable-Units", "")),
    }
    # JSON reads 1e999 as infinity, which no column takes.
    meta = {name: value for name, value in numbers.items() if isinstance(value, int | float) and abs(value) < 1e15}
    return Succeeded(url, meta=meta)


def _failure(answer: Answer) -> Failed:
    said = fal_errors.read(answer.data, answer.headers)
    return Failed(said.error_class, _detail(answer))


def _detail(answer: Answer) -> str:
    said = fal_errors.read(answer.data, answer.headers)
    told = redacted({"type": said.kind, "at": said.field, "message": said.message, "cause": said.cause})
    whose = "Our account is refused: " if answer.status_code in (401, 403) else ""
    return f"{whose}HTTP {answer.status_code} {told}"[:MAX_DETAIL]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
