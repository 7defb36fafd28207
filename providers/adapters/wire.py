"""What adapters over HTTP share: one call, told to the staff without secrets, and its outcome in our words."""

import dataclasses
import datetime as dt
import email.utils
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from providers.adapters.base import (
    Adapter,
    DownloadError,
    ErrorClass,
    Exchange,
    Refused,
    Unknown,
    Unreadable,
)
from seedancee2.lib import clock, http

MAX_REPLY_BYTES = 8 * 1024 * 1024
MAX_KEPT_CHARACTERS = 4_000
DOWNLOAD_SECONDS = 180.0

# Whoever holds one of these could act as us, and words and addresses of customers are nobody's business here.
_CALLBACK_KEYS = frozenset({"callback_url", "callBackUrl", "webhook", "fal_webhook"})
_CONTENT_KEYS = frozenset({"prompt", "text", "input", "param", "logs"})
# Slashes may be escaped where JSON stands inside a string of JSON.
_QUERY = re.compile(r"(https?:(?:\\{0,3}/){2}(?:[^\s\"'\\?<>]|\\{1,3}/)+)\?[^\s\"'\\<>]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One reply: `data` is its JSON, or None where it is none."""

    status_code: int
    headers: Mapping[str, str]
    data: Any
    text: str

    @property
    def retry_after(self) -> float | None:
        """Return the seconds that the provider asks us to wait."""
        value = self.headers.get("Retry-After", "")
        if value.isdecimal():
            return float(value[:9])
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # the latter for an absurd zone
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return max(0.0, (moment - clock.now()).total_seconds())

    def field(self, *path: str) -> Any:
        """Return a value inside the JSON; None where any step of the path is missing."""
        value = self.data
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value


class HttpAdapter(Adapter):
    """An adapter that speaks JSON over HTTP. Nothing is ever sent a second time here."""

    own_output_hosts: ClassVar[tuple[str, ...]] = ()
    submit_seconds: ClassVar[float] = 60.0
    ask_seconds: ClassVar[float] = 20.0

    def authorization(self) -> str:
        """Return the Authorization header; providers differ in its first word."""
        return f"Bearer {self.access.credential}"

    def url(self, path: str, query: Sequence[tuple[str, str]] = ()) -> str:
        """Return the address of a path below the channel's base URL."""
        return self.access.base_url.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")

    def is_own(self, url: str) -> bool:
        """Tell whether an address that came with an answer is on the channel's own host, so that it may get our key."""
        given, own = urlsplit(url), urlsplit(self.access.base_url)
        return (given.scheme, given.netloc) == (own.scheme, own.netloc)

    def post(
        self, url: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> Answer | Refused | Unknown:
        """Send a submission once. What is not an answer in JSON is `Refused` where nothing left us, else `Unknown`."""
        try:
            answer = self.call("submit", "POST", url, body=body, headers=headers, seconds=self.submit_seconds)
        except http.Blocked as error:
            return Refused(ErrorClass.OUR_ACCOUNT, f"The channel's address may not be called: {error.reason}.")
        except http.TransportFailed as error:
            if error.was_sent:
                return Unknown(f"No whole reply came: {error.kind}.")
            return Refused(ErrorClass.TRANSIENT, f"The provider could not be reached: {error.kind}.")
        if not isinstance(answer.data, dict):
            # These three are said before anything is begun, by whatever stands in front of the provider too.
            if answer.status_code in (401, 403):
                return Refused(ErrorClass.OUR_ACCOUNT, f"HTTP {answer.status_code} without a JSON object.")
            if answer.status_code == 429:
                detail = "HTTP 429 without a JSON object."
                return Refused(ErrorClass.CAPACITY, detail, retry_after=answer.retry_after)
            return Unknown(f"HTTP {answer.status_code} without a JSON object.")
        return answer

    def ask(self, kind: str, url: str, *, method: str = "GET") -> Answer | Unreadable:
        """Ask for something; what is not an answer in JSON is `Unreadable`, whatever its status."""
        try:
            answer = self.call(kind, method, url, seconds=self.ask_seconds)
        except http.Blocked as error:
            return Unreadable(f"The address may not be called: {error.reason}.")
        except http.TransportFailed as error:
            return Unreadable(f"No whole reply came: {error.kind}.")
        if not isinstance(answer.data, dict):
            return Unreadable(f"HTTP {answer.status_code} without a JSON object.")
        return answer

    def call(
        self,
        kind: str,
        method: str,
        url: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float,
    ) -> Answer:
        """Make one call and note it for the staff.

        Raises:
            Blocked: the address may not be called.
            TransportFailed: no whole reply came.
        """
        sent = {"Authorization": self.authorization(), "Accept": "application/json", **(headers or {})}
        payload = b""
        if body is not None:
            payload = json.dumps(body, ensure_ascii=False).encode()
            sent["Content-Type"] = "application/json"
        token = _callback_token(url, body)
        told = f"{method} {_without_query(url)} {redacted(body) if body is not None else ''}".strip()
        try:
            reply = http.send(
                method, url, headers=sent, body=payload, deadline_seconds=seconds, max_response_bytes=MAX_REPLY_BYTES
            )
        except (http.Blocked, http.TransportFailed) as error:
            self.exchanges.append(Exchange(kind, told, None, str(error), 0))
            raise
        text = self._without_secrets(reply.body.decode(errors="replace"), token)
        data = None if reply.is_cut else _parsed(text)
        kept = redacted(data) if data is not None else _storable(_without_query(text[:MAX_KEPT_CHARACTERS]))
        self.exchanges.append(Exchange(kind, told, reply.status_code, kept, reply.duration_ms))
        return Answer(reply.status_code, reply.headers, data, text)

    def _without_secrets(self, text: str, token: str) -> str:
        # An answer may quote our key, or the address that we gave; nothing read from it may hold either.
        secrets = [self.access.credential, *self.access.credential.split(":"), self.access.callback_secret, token]
        for secret in secrets:
            if len(secret) >= 8:
                text = text.replace(secret, "<secret>")
        return text

    def download(self, url: str, destination: Path, *, max_bytes: int) -> None:
        """Fetch an output into a file of at most `max_bytes`, without our key and from the provider's hosts only.

        Raises:
            DownloadError: it could not be fetched; final where the provider says that it is gone.
        """
        try:
            host = urlsplit(url).hostname or ""
        except ValueError as error:
            raise DownloadError("The output's address is no URL.", is_final=True) from error
        if not any(_matches(host, pattern) for pattern in (*self.own_output_hosts, *self.access.output_hosts)):
            raise DownloadError(f"{host} is not among the hosts that outputs may come from.")
        try:
            result = http.download(url, destination, max_bytes=max_bytes, deadline_seconds=DOWNLOAD_SECONDS)
        except http.Blocked as error:
            raise DownloadError(f"The output's address may not be called: {error.reason}.") from error
        except http.TransportFailed as error:
            self.exchanges.append(Exchange("download", f"GET {_without_query(url)}", None, str(error), 0))
            raise DownloadError(
                f"The output did not come whole: {error.kind}.", is_final=error.kind == http.Kind.TOO_LARGE
            ) from error
        told = f"{result.byte_count} bytes"
        self.exchanges.append(
            Exchange("download", f"GET {_without_query(url)}", result.status_code, told, result.duration_ms)
        )
        if result.status_code != 200:
            is_gone = result.status_code in (401, 403, 404, 410)
            raise DownloadError(f"The output's address answers {result.status_code}.", is_final=is_gone)


def redacted(data: Any) -> str:
    """Return JSON as text for the staff: no words of customers, no callback address, no query of any URL."""
    return _storable(json.dumps(_redacted(data), ensure_ascii=False)[:MAX_KEPT_CHARACTERS])


def _redacted(value: Any, key: str = "") -> Any:
    if key in _CALLBACK_KEYS:
        return "<callback>"
    if isinstance(value, dict):
        return {name: _redacted(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item, key) for item in value]
    if isinstance(value, str):
        return f"<{len(value)} characters>" if key in _CONTENT_KEYS else _without_query(value)
    return value


def _callback_token(url: str, body: Mapping[str, Any] | None) -> str:
    """Return the token in the callback address that a submission carries; empty where it carries none."""
    query = dict(parse_qsl(urlsplit(url).query))
    found = [str(part[key]) for part in (body or {}, query) for key in _CALLBACK_KEYS if part.get(key)]
    return urlsplit(found[0]).path.rpartition("/")[2] if found else ""


def _without_query(text: str) -> str:
    return _QUERY.sub(r"\1?…", text)


def _storable(text: str) -> str:
    # PostgreSQL takes neither half of a cut character nor NUL, and what is kept must never be what fails.
    return text.encode(errors="replace").decode().replace("\0", "�")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _matches(host: str, pattern: str) -> bool:
    host, pattern = host.lower().rstrip("."), pattern.lower()
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
