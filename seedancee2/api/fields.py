"""Strict fields: no value is bent into another type, and every message continues the field's path into a sentence."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.fields import empty

from seedancee2.lib import destinations

_PRESENCE = {"required": "is required.", "null": "is required."}


class StrictChar(serializers.CharField):
    """A JSON string."""

    default_error_messages = {
        **_PRESENCE,
        "invalid": "must be a string.",
        "blank": "must not be empty.",
        "max_length": "must not be longer than {max_length} characters.",
    }

    def run_validation(self, data: Any = empty) -> Any:
        """Refuse other types first: DRF would read a number's digits."""
        if data is not empty and data is not None and not isinstance(data, str):
            self.fail("invalid")
        return super().run_validation(data)


class StrictInteger(serializers.IntegerField):
    """A JSON number without a fraction; 5.0 is 5, but "5" and true are no integers."""

    default_error_messages = {
        **_PRESENCE,
        "invalid": "must be an integer.",
        "out_of_range": "must be between {min_value} and {max_value}.",
    }

    def __init__(self, *, minimum: int, maximum: int, **kwargs: Any) -> None:
        super().__init__(min_value=minimum, max_value=maximum, **kwargs)
        self.minimum = minimum
        self.maximum = maximum

    def run_validation(self, data: Any = empty) -> Any:
        """Check type and range in one step, so that one sentence tells both ends."""
        is_missing, value = self.validate_empty_values(data)
        if is_missing:
            return value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail("invalid")
        if not self.minimum <= value <= self.maximum:
            self.fail("out_of_range", min_value=self.minimum, max_value=self.maximum)
        return value


class StrictBoolean(serializers.BooleanField):
    """true or false; 1 and "true" are neither."""

    default_error_messages = {**_PRESENCE, "invalid": "must be true or false."}

    def run_validation(self, data: Any = empty) -> Any:
        """Compare types instead of looking the value up in a list of spellings."""
        is_missing, value = self.validate_empty_values(data)
        if is_missing:
            return value
        if not isinstance(value, bool):
            self.fail("invalid")
        return value


class StrictChoice(serializers.ChoiceField):
    """One of a few strings; the message lists them."""

    default_error_messages = {**_PRESENCE, "invalid_choice": "must be one of {choices}."}

    def to_internal_value(self, data: Any) -> Any:
        """Return the choice."""
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", choices=", ".join(str(choice) for choice in self.choices))
        return data


@extend_schema_field({"type": "string", "format": "uri", "minLength": 1, "maxLength": destinations.MAX_URL_LENGTH})
class PublicURL(StrictChar):
    """An absolute http or https URL of a host that is not private."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the URL as it was sent."""
        try:
            destinations.check(data)
        except destinations.BadDestination as error:
            raise ValidationError(f"{error.reason}.") from None
        return str(data)


class StrictList(serializers.ListField):
    """A JSON list; its length is checked before its items."""

    default_error_messages = {
        **_PRESENCE,
        "not_a_list": "must be a list.",
        "too_long": "must not hold more than {max_length} items.",
    }

    def to_internal_value(self, data: Any) -> Any:
        """Return the checked items."""
        if not isinstance(data, list):
            self.fail("not_a_list")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("too_long", max_length=self.max_length)
        return self.run_child_validation(data)


class StrictObject(serializers.Serializer[Any]):
    """A JSON object with known fields, all of them checked even where some are wrong.

    null for an optional field means that it is absent.
    """

    default_error_messages = {**_PRESENCE, "invalid": "must be an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the checked values."""
        if not isinstance(data, dict):
            raise ValidationError({"": [self.error_messages["invalid"]]})
        values: dict[str, Any] = {}
        problems: dict[str, Any] = {}
        for name, field in self.fields.items():
            given = data.get(name, empty)
            if given is None and not field.required:
                given = empty
            try:
                values[name] = field.run_validation(given)
            except serializers.SkipField:
                continue
            except ValidationError as error:
                problems[name] = error.detail
        for name, sentence in self.combination_problems(values, problems):
            # The problems of a list's items are a mapping, which stays one of several.
            problems[name] = [*([problems[name]] if name in problems else []), ErrorDetail(sentence)]
        if problems:
            raise ValidationError(problems)
        return values

    def combination_problems(self, values: Mapping[str, Any], problems: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between fields: a name and a sentence; `problems` has the fields wrong by themselves."""
        yield from ()


def sentences(detail: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Flatten a serializer's errors into pairs of path and sentence, in the order of its fields."""
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from sentences(value, _joined(path, key))
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        for value in detail:
            yield from sentences(value, path)
    else:
        yield path, f"{path} {detail}"


def _joined(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return ".".join(part for part in (path, key) if part)
