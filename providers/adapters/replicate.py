"""Replicate's predictions API for the Seedance 2 family (Replicate sheet): signed callbacks, and outputs for an hour.

Options of a channel:
    cancel_after ("1h"): after how long the provider gives a prediction up, from its creation; empty for never.
    reference_tag ("[{kind}{number}]"): how a prompt names a reference, with kinds Image, Video and Audio. Change it
        only while nothing is under way.
    check_model (true): believe an answer only if it names the model that was asked for.
    words ({}): more words of failures by class, such as {"customer_moderation": ["likeness"]}; the classes are
        customer_moderation, customer_input and transient, tried in this order.

The key that callbacks are signed with is the account's and is asked for with the channel's credential; a callback
secret of the channel (`whsec_…`) takes its place. 1080p, which is not proven there, is for a route to allow.
"""

import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard
from urllib.parse import parse_qsl, quote

from providers.adapters import prompts, replicate_errors, replicate_webhooks
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
    LookFailed,
    Lost,
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

PREDICTIONS: Final = "/predictions"
MAX_PROMPT_CHARACTERS: Final = 2_000
SEED_RANGE: Final = 2**31
MAX_PAGES: Final = 50
CLOCK_SLACK: Final = dt.timedelta(seconds=60)
MAX_DETAIL: Final = 500

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}")
_URL = re.compile(r"https?://[A-Za-z0-9._-]+(?::[0-9]{1,5})?(?:[/?][^\x00-\x20\x7f\ud800-\udfff]*)?")
_MEDIA_KEYS: Final = ("image", "last_frame_image", "reference_images", "reference_videos", "reference_audios")
_SETTINGS: Final = ("duration", "resolution", "aspect_ratio", "generate_audio", "seed")


class ReplicateAdapter(HttpAdapter):
    """Speaks to Replicate. Whatever a callback says, a prediction is asked for by GET."""

    name = "replicate"
    capabilities = Capabilities(
        resolutions={model: frozenset({"480p", "720p"}) for model in ("pro", "fast", "mini")},
        max_prompt_characters=MAX_PROMPT_CHARACTERS,
    )
    own_output_hosts = ("replicate.delivery", "*.replicate.delivery")

    def submit(self, request: JobRequest, *, upstream_model: str, ticket: Ticket) -> Submission:
        """Create a prediction, once."""
        if request.audio_urls and not (request.image_urls or request.video_urls):
            return Refused(ErrorClass.CUSTOMER_INPUT, "Audio cannot be the only reference.", Reason.AUDIO_ALONE)
        body: dict[str, Any] = {"input": self._input(request)}
        # Longer ones are cut off there without a word; names of references may have made it longer.
        if len(body["input"]["prompt"]) > MAX_PROMPT_CHARACTERS:
            return Refused(ErrorClass.OUR_BUG, f"The prompt has more than {MAX_PROMPT_CHARACTERS} characters.")
        if ticket.callback_url:
            body |= {"webhook": ticket.callback_url, "webhook_events_filter": ["start", "completed"]}
        cancel_after = self.access.options.get("cancel_after", "1h")
        url = self.url(f"/models/{quote(upstream_model)}{PREDICTIONS}")
        answer = self.post(url, body, headers={"Cancel-After": cancel_after} if cancel_after else {})
        if not isinstance(answer, Answer):
            return answer
        if 200 <= answer.status_code < 300:
            upstream_id = answer.field("id")
            if _is_id(upstream_id):
                return Accepted(upstream_id)
            return Unknown(f"HTTP {answer.status_code} without the id of a prediction.")
        if not replicate_errors.is_certain(answer.status_code, answer.data):
            return Unknown(_detail(answer))
        error_class = replicate_errors.of_problem(answer.status_code, answer.data)
        retry_after = answer.retry_after
        if retry_after is None:
            retry_after = replicate_errors.reset_seconds(answer.data)
        is_model_only = answer.status_code == 404
        return Refused(error_class, _detail(answer), retry_after=retry_after, is_model_only=is_model_only)

    def fetch(self, ref: Ref) -> Progress:
        """Ask what became of one prediction."""
        prediction = self._prediction("fetch", ref)
        return prediction if isinstance(prediction, Unreadable) else self._progress(prediction, ref)

    def recover(self, lost: Lost) -> Sequence[Accepted]:
        """Look through the list of predictions since a minute before the submission.

        Those that tell their webhook are known by its token, the others by their input.

        Raises:
            LookFailed: the list could not be read to where the submission began.
        """
        since = lost.started_at - CLOCK_SLACK
        certain: dict[str, Accepted] = {}
        likely: dict[str, Accepted] = {}
        for items in self._pages():
            times = [_moment(item.get("created_at")) or since for item in items]
            for item, created_at in zip(items, times, strict=True):
                if created_at < since or not _is_id(item.get("id")):
                    continue
                token = _token(item.get("webhook"))
                if token:
                    if hmac.compare_digest(hashlib.sha256(token.encode()).digest(), lost.token_digest):
                        certain[item["id"]] = Accepted(item["id"])
                elif self._may_be(item, lost):
                    likely[item["id"]] = Accepted(item["id"], is_certain=False)
            # Newest first; a whole page, since clocks of several hosts may differ a little.
            if times and max(times) < since:
                break
        return list((certain or likely).values())

    def cancel(self, ref: Ref) -> Cancellation:
        """Ask for a prediction's end; nothing happens to one that has ended."""
        prediction = self._prediction("cancel", ref, method="POST", action="/cancel")
        if isinstance(prediction, Unreadable):
            return Cancellation.MAYBE
        match self._progress(prediction, ref):
            case Pending() | Running() | Unreadable(is_done=False):
                return Cancellation.MAYBE
        is_stopped = prediction["status"] in ("canceled", "aborted")
        return Cancellation.DONE if is_stopped else Cancellation.TOO_LATE

    def read_callback(self, headers: Mapping[str, str], body: bytes, *, received_at: dt.datetime) -> Callback:
        """Check a callback's signature, which covers all of it (Replicate sheet §6), and read the id."""
        fault = replicate_webhooks.fault(
            headers, body, received_at=received_at, secret=self.access.callback_secret, key=self._signing_key()
        )
        if fault:
            return Forged(fault)
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            data = None
        upstream_id = data.get("id") if isinstance(data, dict) else None
        return Hint(upstream_id if _is_id(upstream_id) else "", is_verified=True)

    def _input(self, request: JobRequest) -> dict[str, Any]:
        media = {
            "image": request.first_frame_url,
            "last_frame_image": request.last_frame_url,
            "reference_images": list(request.image_urls),
            "reference_videos": list(request.video_urls),
            "reference_audios": list(request.audio_urls),
        }
        has_seed = request.seed is not None and request.seed >= 0
        return {
            "prompt": prompts.rewrite(request, tag=self.access.options.get("reference_tag", "[{kind}{number}]")),
            **{key: value for key, value in media.items() if value},
            "duration": request.duration,
            "resolution": request.resolution,
            "aspect_ratio": request.aspect_ratio,
            "generate_audio": request.generate_audio,
            **({"seed": (request.seed or 0) % SEED_RANGE} if has_seed else {}),
        }

    def _prediction(
        self, kind: str, ref: Ref, *, method: str = "GET", action: str = ""
    ) -> Mapping[str, Any] | Unreadable:
        url = self.url(f"{PREDICTIONS}/{quote(ref.upstream_id, safe='')}{action}")
        answer = self.ask(kind, url, method=method)
        if isinstance(answer, Unreadable):
            return answer
        if answer.status_code == 200:
            data: Mapping[str, Any] = answer.data
            return data
        # Not even a 404 is an end: it also stands for the predictions of another account.
        return Unreadable(_detail(answer))

    def _progress(self, prediction: Mapping[str, Any], ref: Ref) -> Progress:
        if prediction.get("id") != ref.upstream_id:
            return Unreadable("The answer is about another prediction.")
        if not self._is_of(prediction, ref.upstream_model):
            return Unreadable(f"The prediction is of the model {str(prediction['model'])[:100]!r}.", is_new=True)
        match prediction.get("status"):
            case "starting":
                return Pending()
            case "processing":
                return Running()
            case "succeeded":
                return _success(prediction)
            case "failed":
                return self._failure(prediction)
            case "canceled":
                return Failed(ErrorClass.OUR_BUG, "The prediction was canceled there.")
            case "aborted":
                return Failed(ErrorClass.TRANSIENT, "The prediction waited there until its deadline.")
        return Unreadable(f"The status {str(prediction.get('status'))[:100]!r} is not documented.", is_new=True)

    def _failure(self, prediction: Mapping[str, Any]) -> Failed:
        error, given = prediction.get("error"), prediction.get("input")
        error_class = replicate_errors.of_prediction(
            error if isinstance(error, str) else json.dumps(error),
            # What an hour has removed says nothing.
            media_urls=_media_urls(given) if isinstance(given, dict) and given else None,
            more_words=self.access.options.get("words", {}),
        )
        return Failed(error_class, redacted({"error": error})[:MAX_DETAIL])

    def _pages(self) -> Iterator[list[Mapping[str, Any]]]:
        """Yield the pages of the list of predictions to its end.

        Raises:
            LookFailed: a page could not be read, or there are too many.
        """
        query: list[tuple[str, str]] = []
        for _ in range(MAX_PAGES):
            answer = self.ask("recover", self.url(PREDICTIONS, query))
            if isinstance(answer, Unreadable):
                raise LookFailed(answer.detail)
            items, following = answer.field("results"), answer.field("next")
            if answer.status_code != 200:
                raise LookFailed(_detail(answer))
            if not isinstance(items, list):
                raise LookFailed("The list has no results.")
            yield [item for item in items if isinstance(item, dict)]
            if not following:
                return
            # Only its query is followed, so that our key goes nowhere else.
            query = parse_qsl(following.partition("?")[2]) if isinstance(following, str) else []
            if not query:
                raise LookFailed("The list does not tell where it goes on.")
        raise LookFailed(f"The list of predictions has more than {MAX_PAGES} pages.")

    def _may_be(self, item: Mapping[str, Any], lost: Lost) -> bool:
        told = item.get("input")
        if not self._is_of(item, lost.upstream_model):
            return False
        # An hour after its end a prediction tells nothing.
        if not (isinstance(told, dict) and told):
            return True
        asked = self._input(lost.request)
        if any((told.get(name) or None) != (asked.get(name) or None) for name in ("prompt", *_MEDIA_KEYS)):
            return False
        # Defaults may be left out, and a seed that was chosen there may be told.
        return all(told.get(name) in (None, asked.get(name)) for name in _SETTINGS if name in asked)

    def _is_of(self, prediction: Mapping[str, Any], upstream_model: str) -> bool:
        told = prediction.get("model")
        if not (told and upstream_model and self.access.options.get("check_model", True)):
            return True
        return bool(told == upstream_model)

    def _signing_key(self) -> replicate_webhooks.SigningKey:
        return replicate_webhooks.key_of(
            self.access.name, self.url(replicate_webhooks.SECRET), authorization=self.authorization()
        )


def _success(prediction: Mapping[str, Any]) -> Succeeded | Failed | Unreadable:
    output = prediction.get("output")
    urls = output if isinstance(output, list) else [output]
    if len(urls) == 1 and isinstance(urls[0], str) and _URL.fullmatch(urls[0]):
        return Succeeded(urls[0], None, _numbers(prediction.get("metrics")))
    if prediction.get("data_removed") is True and not output:
        return Failed(ErrorClass.TRANSIENT, "The prediction succeeded, but its output was removed before we asked.")
    return Unreadable("The prediction succeeded without one video URL.", is_new=bool(output), is_done=True)


def _numbers(metrics: Any) -> Mapping[str, int | float]:
    if not isinstance(metrics, dict):
        return {}
    numbers = {"seconds": metrics.get("predict_time"), "duration": metrics.get("video_output_duration_seconds")}
    # JSON reads 1e999 as infinity, which no column takes.
    return {name: number for name, number in numbers.items() if isinstance(number, int | float) and abs(number) < 1e12}


def _media_urls(given: Mapping[str, Any]) -> list[str]:
    values = [given.get(key) for key in _MEDIA_KEYS]
    urls = [url for value in values for url in (value if isinstance(value, list) else [value])]
    return [url for url in urls if isinstance(url, str)]


def _token(webhook: Any) -> str:
    """Return the token in the address of a webhook; empty where there is none, or a part of it was blotted out."""
    token = webhook.partition("?")[0].rpartition("/")[2] if isinstance(webhook, str) else ""
    return token if _TOKEN.fullmatch(token) else ""


def _moment(value: Any) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _detail(answer: Answer) -> str:
    told = {name: answer.data[name] for name in ("title", "detail", "invalid_fields") if name in answer.data}
    is_ours = answer.status_code in (401, 402, 403)
    if answer.status_code == 429:
        is_ours = replicate_errors.of_problem(429, answer.data) is ErrorClass.OUR_ACCOUNT
    whose = "Our account is refused: " if is_ours else ""
    return f"{whose}HTTP {answer.status_code} {redacted(told)}"[:MAX_DETAIL]


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
