"""From a parsed body to a `JobSpec`: every problem of a request told at once, in the order of the public page."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rest_framework.exceptions import ValidationError

from accounts import policies
from generations import catalog
from generations.models import PublicModel
from generations.serializers import DEFAULTS, CreateSerializer, InputSerializer
from generations.specs import JobSpec
from seedancee2.api import naming
from seedancee2.api.errors import InvalidRequest
from seedancee2.api.fields import sentences

MAX_PROBLEMS = 20
_MAX_KEYS_COMPARED = 200  # unknown keys of one object that are compared with the real ones letter by letter

# One for all requests and threads: checking changes nothing in it, and making it copies every field.
_SERIALIZER = CreateSerializer()

_TOP_FIELDS = tuple(_SERIALIZER.fields)
_INPUT_FIELDS = tuple(InputSerializer().fields)
_PAGE_ORDER = ["model", "input", *(f"input.{name}" for name in _INPUT_FIELDS), "callback_url", "metadata"]


@dataclasses.dataclass(frozen=True, slots=True)
class CreateRequest:
    """A create body that was looked through: `problems` empty means that it can be run."""

    problems: tuple[str, ...]
    ignored: tuple[str, ...]
    spec: JobSpec | None = None

    def checked_spec(self) -> JobSpec:
        """Return what was asked for.

        Raises:
            InvalidRequest: the message names every problem.
        """
        if self.spec is None:
            shown = [*self.problems[:MAX_PROBLEMS]]
            if len(self.problems) > MAX_PROBLEMS:
                shown.append(f"And {len(self.problems) - MAX_PROBLEMS} more problems.")
            raise InvalidRequest(" ".join(shown))
        return self.spec


def read(body: Mapping[str, Any], *, callback_hosts: Collection[str] = ()) -> CreateRequest:
    """Check a create body against the page's tables and the catalog; an unknown model is nobody's problem here.

    `callback_hosts` are those that the organization allows; none means any.
    """
    values: Mapping[str, Any] = {}
    found: list[tuple[str, str]] = []
    try:
        values = _SERIALIZER.run_validation(body)
    except ValidationError as error:
        found = list(sentences(error.detail))
    name, model = _model(body)
    found.extend(_model_problems(body, model, {path for path, _ in found}))
    found.extend(_callback_problems(body, callback_hosts, {path for path, _ in found}))
    ignored: list[str] = []
    misses = list(_foreign_keys(body, ignored))
    missed = {path for path, _ in misses}
    found = [(path, text) for path, text in found if not (path in missed and text.endswith("is required."))]
    ordered = sorted([*misses, *found], key=lambda problem: _rank(problem[0]))
    problems = tuple(dict.fromkeys(text for _, text in ordered))
    return CreateRequest(problems, tuple(ignored), None if problems else _spec(values, model.name if model else name))


def _model(body: Mapping[str, Any]) -> tuple[str, PublicModel | None]:
    name = body.get("model")
    return (name, catalog.find(name)) if isinstance(name, str) else ("", None)


def _model_problems(body: Mapping[str, Any], model: PublicModel | None, wrong: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what the chosen model cannot do, for values that are right by themselves."""
    given = body.get("input")
    if model is None or not isinstance(given, dict):
        return
    resolution = given.get("resolution") or DEFAULTS.resolution
    if "input.resolution" not in wrong and resolution not in model.resolutions:
        supported = ", ".join(model.resolutions)
        yield "input.resolution", f"input.resolution must be one of {supported} for the model {model.name}."
    duration = given.get("duration") or DEFAULTS.duration
    if "input.duration" not in wrong and not model.min_duration <= duration <= model.max_duration:
        bounds = f"{model.min_duration} and {model.max_duration}"
        yield "input.duration", f"input.duration must be between {bounds} for the model {model.name}."


def _callback_problems(body: Mapping[str, Any], hosts: Collection[str], wrong: set[str]) -> Iterator[tuple[str, str]]:
    url = body.get("callback_url")
    if "callback_url" in wrong or not isinstance(url, str):
        return
    if problem := policies.host_problem(hosts, url):
        yield "callback_url", f"callback_url {problem}"


def _foreign_keys(body: Mapping[str, Any], ignored: list[str]) -> Iterator[tuple[str, str]]:
    """Yield keys that look like a typing error or stand in the wrong place; collect all others."""
    yield from _compared(body, "", _TOP_FIELDS, "input.", _INPUT_FIELDS, ignored)
    given = body.get("input")
    if isinstance(given, dict):
        yield from _compared(given, "input.", _INPUT_FIELDS, "", _TOP_FIELDS, ignored)


def _compared(
    given: Mapping[str, Any],
    prefix: str,
    names: tuple[str, ...],
    other_prefix: str,
    other_names: tuple[str, ...],
    ignored: list[str],
) -> Iterator[tuple[str, str]]:
    unknown = [key for key in given if key not in names]
    for index, key in enumerate(unknown):
        path = f"{prefix}{key}"
        shown = path if len(path) <= 64 else f"{path[:64]}…"
        if index >= _MAX_KEYS_COMPARED:
            ignored.append(path)
        elif key in other_names:
            meant = f"{other_prefix}{key}"
            place = "inside input" if other_prefix else "at the top of the request, not inside input"
            yield meant, f"{shown} belongs {place}: send it as {meant}."
        elif near := naming.near_miss(key, names):
            yield f"{prefix}{near}", f"{shown} is not a field; did you mean {prefix}{near}?"
        elif near := naming.near_miss(key, other_names):
            yield f"{other_prefix}{near}", f"{shown} is not a field; did you mean {other_prefix}{near}?"
        else:
            ignored.append(path)


def _rank(path: str) -> int:
    base = path.partition("[")[0]
    return _PAGE_ORDER.index(base) if base in _PAGE_ORDER else len(_PAGE_ORDER)


def _spec(values: Mapping[str, Any], model: str) -> JobSpec:
    given = values["input"]
    single = given.get("video_url")
    return JobSpec(
        model=model,
        prompt=given["prompt"],
        generation_type=given["generation_type"],
        image_urls=tuple(given.get("image_urls", ())),
        video_urls=(single,) if single else tuple(given.get("video_urls", ())),
        audio_urls=tuple(given.get("audio_urls", ())),
        start_image_url=given.get("start_image_url"),
        end_image_url=given.get("end_image_url"),
        duration=given["duration"],
        resolution=given["resolution"],
        aspect_ratio=given["aspect_ratio"],
        generate_audio=given["generate_audio"],
        watermark=given["watermark"],
        seed=given.get("seed"),
        return_last_frame=given["return_last_frame"],
        callback_url=values.get("callback_url", ""),
        metadata=values.get("metadata", {}),
    )
