"""The playground's form: made from what a model can do, and read as the create body that `/v1` would get."""

import contextlib
import json
import re
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from django import forms

from accounts.models import ApiKey
from billing import rates
from generations import catalog, requests
from generations.models import Generation, PublicModel
from generations.serializers import (
    ASPECT_RATIOS,
    DEFAULTS,
    FIRST_AND_LAST_FRAMES,
    MAX_AUDIOS,
    MAX_IMAGES,
    MAX_PROMPT_LENGTH,
    MAX_VIDEOS,
    OMNI_REFERENCE,
)
from seedancee2.api import parsing
from seedancee2.api.errors import InvalidRequest
from seedancee2.lib import clock

LIVE, TEST = "live", "test"
NO_CAPPED_KEY: Final = "You have no live key with a cap. Issue one on the page of API keys, or make a test video."

_LISTS: Final = ("image_urls", "video_urls", "audio_urls")
_NUMBERS: Final = ("duration", "seed")
_SWITCHES: Final = ("generate_audio", "watermark", "return_last_frame")
_ORDER: Final = tuple(DEFAULTS.input_json())
_ALWAYS_SAID: Final = ("prompt", "duration", "resolution", "aspect_ratio")

_PATH = re.compile(r"(?:input\.)?([a-z_]+)(?:\[([0-9]+)\])?(?=[ .\[])")


class Price(NamedTuple):
    """What a request would cost: credits in all, credits a second, and seconds."""

    credits: int
    rate: int
    seconds: int


def _lines(label: str, most: int) -> forms.CharField:
    text = f"One URL a line, at most {most}."
    return forms.CharField(label=label, required=False, help_text=text, widget=forms.Textarea(attrs={"rows": 2}))


def _choice(label: str, choices: list[tuple[str, str]], help_text: str = "") -> forms.CharField:
    # What is not on the list is refused by the API's own checks, in its own words.
    return forms.CharField(label=label, required=False, help_text=help_text, widget=forms.Select(choices=choices))


class PlaygroundForm(forms.Form):
    """Every field of a create request. It checks nothing: `requests.read` does, and its problems come back here."""

    key = _choice("Within the limits of", [])
    mode = forms.ChoiceField(
        choices=[(TEST, "Test: free, on the sandbox"), (LIVE, "Live: charges credits")], widget=forms.RadioSelect
    )
    model = _choice("Model", [])
    prompt = forms.CharField(
        label="Prompt",
        required=False,
        help_text=f"What the video shows, at most {MAX_PROMPT_LENGTH:,} characters.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )
    duration = forms.CharField(label="Duration in seconds", required=False)
    resolution = _choice("Resolution", [])
    aspect_ratio = _choice("Aspect ratio", [(ratio, ratio) for ratio in ASPECT_RATIOS])
    generate_audio = forms.BooleanField(label="With sound", required=False)
    watermark = forms.BooleanField(label="With a watermark", required=False)
    return_last_frame = forms.BooleanField(label="Give the last frame as an image too", required=False)
    generation_type = _choice(
        "References are",
        [(OMNI_REFERENCE, "References for the whole video"), (FIRST_AND_LAST_FRAMES, "Its first and last frame")],
    )
    image_urls = _lines("Reference images", MAX_IMAGES)
    video_urls = _lines("Reference videos", MAX_VIDEOS)
    audio_urls = _lines("Reference audio", MAX_AUDIOS)
    start_image_url = forms.CharField(label="First frame", required=False, help_text="URL of an image.")
    end_image_url = forms.CharField(label="Last frame", required=False, help_text="URL of an image.")
    seed = forms.CharField(label="Seed", required=False, help_text="The same seed gives a similar video again.")
    callback_url = forms.CharField(label="Webhook URL", required=False, help_text="Told when the video is done.")
    metadata = forms.CharField(
        label="Metadata",
        required=False,
        help_text="A JSON object of your own, echoed back.",
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
    )

    def __init__(
        self, data: Any = None, *, keys: Sequence[ApiKey] = (), demands_key: bool = False, **kwargs: Any
    ) -> None:
        """Make the form for somebody with these live keys, of which they must choose one if that is demanded."""
        super().__init__(data, **kwargs)
        self.keys = {str(key.pk): key for key in keys}
        self.demands_key = demands_key
        self._offer_keys()
        models = catalog.active_models()
        named = catalog.find(str(self["model"].value() or ""))
        self.limits: PublicModel | None = named or next(iter(models), None)
        self.fields["model"].widget.choices = [(model.name, model.name) for model in models]
        if self.limits is not None:
            self._limit_to(self.limits)

    def _offer_keys(self) -> None:
        field = self.fields["key"]
        named = [(pk, f"{key.name} ({key.masked})") for pk, key in self.keys.items()]
        field.widget.choices = named if self.demands_key else [("", "No key"), *named]
        field.help_text = (
            "A live video keeps to the models and the monthly cap of one of your keys: your organization demands caps."
            if self.demands_key
            else "A live video keeps to this key's models and cap; without one, your organization's credits limit it."
        )

    def limiting_key(self) -> ApiKey | None:
        """Return the key whose terms a live video keeps to; None for none.

        Raises:
            InvalidRequest: it is not one of the person's, or one is demanded; that is said beside the field too.
        """
        wanted = str(self["key"].value() or "")
        if self.is_test or not (wanted or self.demands_key):
            return None
        if wanted not in self.keys:
            self.add_error("key", "Choose one of your live keys that work." if self.keys else NO_CAPPED_KEY)
            raise InvalidRequest
        return self.keys[wanted]

    def _limit_to(self, model: PublicModel) -> None:
        resolutions = [(resolution, resolution) for resolution in model.resolutions]
        self.fields["resolution"].widget.choices = resolutions
        self.fields["duration"].help_text = f"{model.name} makes {model.min_duration} to {model.max_duration} seconds."
        limits = {"min": model.min_duration, "max": model.max_duration, "step": 1}
        self.fields["duration"].widget = forms.NumberInput(attrs=limits)
        self.fields["seed"].widget = forms.NumberInput(attrs={"min": -1, "step": 1})

    @property
    def is_test(self) -> bool:
        """Whether the form asks for the sandbox: always, unless it says `live`."""
        return str(self["mode"].value()) != LIVE

    @property
    def first_fields(self) -> list[forms.BoundField]:
        """The choices that stand beside each other."""
        return [self["resolution"], self["duration"]]

    @property
    def reference_fields(self) -> list[forms.BoundField]:
        """The fields for references."""
        return [self[name] for name in ("generation_type", *_LISTS, "start_image_url", "end_image_url")]

    @property
    def switches(self) -> list[forms.BoundField]:
        """The fields to tick."""
        return [self[name] for name in _SWITCHES]

    @property
    def more_fields(self) -> list[forms.BoundField]:
        """The fields that few need."""
        return [self[name] for name in ("seed", "callback_url", "metadata")]

    def has_errors_in(self, *names: str) -> bool:
        """Tell whether one of these fields has an error."""
        return any(name in self.errors for name in names)

    def body(self) -> dict[str, Any]:
        """Return the create body; what is left empty, or is as it would be anyway, is not in it."""
        given: dict[str, Any] = {}
        defaults = DEFAULTS.input_json()
        for name in _ORDER:
            value = self._value(name)
            if value in (None, "", []) and name != "prompt":
                continue
            if name in _ALWAYS_SAID or value != defaults[name]:
                given[name] = value
        body: dict[str, Any] = {"model": str(self["model"].value() or ""), "input": given}
        if callback_url := str(self["callback_url"].value() or "").strip():
            body["callback_url"] = callback_url
        with contextlib.suppress(InvalidRequest):
            if metadata := self._metadata():
                body["metadata"] = metadata
        return body

    def read(self, *, callback_hosts: Collection[str] = ()) -> requests.CreateRequest:
        """Check the body as `/v1` checks one that comes over the wire; problems are shown beside the fields.

        Raises:
            InvalidRequest: there are some.
        """
        problems: tuple[str, ...] = ()
        checked = requests.CreateRequest((), ())
        try:
            self._metadata()
        except InvalidRequest as error:
            self.add_error("metadata", error.message.replace("The request body", "Metadata"))
        try:
            body = parsing.loads(json.dumps(self.body()).encode())
            checked = requests.read(body, callback_hosts=callback_hosts)
            problems = checked.problems
        except InvalidRequest as error:
            problems = (error.message,)
        self.add_problems(problems)
        if not self.is_valid():
            raise InvalidRequest
        return checked

    def price(self) -> Price | None:
        """Return what a live request would cost; None where the model cannot make it, or nothing was agreed."""
        body = self.body()
        model = catalog.find(body["model"])
        seconds, resolution = body["input"].get("duration"), body["input"].get("resolution")
        if model is None or not isinstance(seconds, int) or not model.min_duration <= seconds <= model.max_duration:
            return None
        if resolution not in model.resolutions:
            return None
        with contextlib.suppress(rates.NoRate):
            rate = rates.in_effect(model=model.name, resolution=resolution, at=clock.now())
            return Price(rate * seconds, rate, seconds)
        return None

    def add_problems(self, problems: tuple[str, ...]) -> None:
        """Show each problem of a create body beside the field whose path it begins with."""
        for problem in problems:
            found = _PATH.match(problem)
            name = found[1] if found else ""
            if found is None or name not in self.fields:
                self.add_error(None, problem)
                continue
            line = f", line {int(found[2]) + 1}," if found[2] else ""
            self.add_error(name, f"{self.fields[name].label}{line}{problem[found.end() :]}")

    def _metadata(self) -> dict[str, Any]:
        text = str(self["metadata"].value() or "").strip()
        return parsing.loads(text.encode()) if text else {}

    def _value(self, name: str) -> Any:
        raw = self[name].value()
        if name in _SWITCHES:
            return bool(raw)
        text = str(raw if raw is not None else "").strip()
        if name in _LISTS:
            return text.split()
        if name in _NUMBERS and re.fullmatch(r"-?[0-9]{1,19}", text):
            return int(text)
        return text


def beginning() -> dict[str, Any]:
    """Return what an empty form begins with: the API's defaults, in test mode."""
    values = DEFAULTS.input_json()
    models = catalog.active_models()
    return {**_as_text(values), "mode": TEST, "model": models[-1].name if models else ""}


def repeating(task: Generation) -> dict[str, Any]:
    """Return what a form begins with that asks for the same once more."""
    metadata = json.dumps(task.metadata, indent=2, ensure_ascii=False) if task.metadata else ""
    asked = {"model": task.model, "callback_url": task.callback_url, "metadata": metadata}
    return {**_as_text(task.input), **asked, "mode": TEST if task.is_test else LIVE}


def fitted(data: Any) -> dict[str, Any]:
    """Return a form's data with a resolution and a duration that its model has, in place of ones that it has not."""
    values = {name: data[name] for name in data}
    model = catalog.find(str(values.get("model", "")))
    if model is None:
        return values
    if values.get("resolution") not in model.resolutions:
        has_default = DEFAULTS.resolution in model.resolutions
        values["resolution"] = DEFAULTS.resolution if has_default else model.resolutions[-1]
    if re.fullmatch(r"[0-9]{1,4}", str(values.get("duration", ""))):
        values["duration"] = str(min(max(int(values["duration"]), model.min_duration), model.max_duration))
    return values


def _as_text(values: dict[str, Any]) -> dict[str, Any]:
    return {name: "\n".join(value) if name in _LISTS else value for name, value in values.items()}
