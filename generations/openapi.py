"""What the OpenAPI document says beyond the views: the rules between fields of a request, links and webhooks."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import OpenApiExample, OpenApiWebhook, extend_schema

from generations import openapi_examples, replies
from generations.models import Generation
from generations.serializers import ASPECT_RATIOS, FIRST_AND_LAST_FRAMES, GENERATION_TYPES, RESOLUTIONS
from seedancee2.api.schema import URL_PATTERN
from webhooks.models import Delivery
from webhooks.replies import DELIVERY_STATES

Schema = dict[str, Any]

# The catalog has the last word; a test holds these against it.
MODELS = ["pro", "fast", "mini"]
MODELS_WITHOUT_1080P = ["fast", "mini"]

# Something besides white space, and no NUL.
PROMPT_PATTERN = r"^[^\u0000]*[^\s\u0000][^\u0000]*$"

_URLS = ("video_url", "start_image_url", "end_image_url")
_URL_LISTS = ("image_urls", "video_urls", "audio_urls")
_ABSENT: Schema = {"type": "null"}
_ABSENT_LIST: Schema = {"maxItems": 0}
_GIVEN: Schema = {"type": "string"}

_FRAMES_RULE: Schema = {
    "if": {
        "properties": {"generation_type": {"const": FIRST_AND_LAST_FRAMES}},
        "required": ["generation_type"],
    },
    "then": {
        "properties": {"video_url": _ABSENT, "video_urls": _ABSENT_LIST, "audio_urls": _ABSENT_LIST},
        "anyOf": [
            {
                "properties": {
                    "image_urls": {"type": "array", "minItems": 2, "maxItems": 2},
                    "start_image_url": _ABSENT,
                    "end_image_url": _ABSENT,
                },
                "required": ["image_urls"],
            },
            {
                "properties": {"image_urls": _ABSENT_LIST, "start_image_url": _GIVEN, "end_image_url": _GIVEN},
                "required": ["start_image_url", "end_image_url"],
            },
        ],
    },
    "else": {
        "properties": {"start_image_url": _ABSENT, "end_image_url": _ABSENT},
        "anyOf": [{"properties": {"video_url": _ABSENT}}, {"properties": {"video_urls": _ABSENT_LIST}}],
    },
}
_RESOLUTION_RULE: Schema = {
    "if": {"properties": {"model": {"enum": MODELS_WITHOUT_1080P}}},
    "then": {
        "properties": {
            "input": {
                "properties": {
                    "resolution": {"enum": [*(name for name in RESOLUTIONS if name != "1080p"), None]},
                }
            }
        }
    },
}


# What generators shall call values that are no names in most languages.
_VALUE_NAMES = {
    "Resolution": [f"RESOLUTION_{value.upper()}" for value in RESOLUTIONS],
    "AspectRatio": [
        f"RATIO_{value.replace(':', '_')}" if value[0].isdigit() else value.upper() for value in ASPECT_RATIOS
    ],
}
# Enumerations that clients get a class of their own for, wherever they are used.
_ENUMS: dict[str, list[str]] = {
    "ModelName": MODELS,
    "GenerationType": GENERATION_TYPES,
    "Resolution": RESOLUTIONS,
    "AspectRatio": ASPECT_RATIOS,
    "TaskStatus": Generation.Status.values,
    "TaskErrorCode": Generation.ErrorCode.values,
    "WebhookEvent": Delivery.Event.values,
    "WebhookDeliveryState": DELIVERY_STATES,
}


class _RequestExtension(OpenApiSerializerExtension):  # type: ignore[no-untyped-call] # its registry is untyped
    component_name = ""
    description = ""

    def get_name(self, auto_schema: Any, direction: Any) -> str:
        """Name the component as a client's class should be called."""
        return self.component_name

    def map_serializer(self, auto_schema: Any, direction: Any) -> Schema:
        """Add what the fields themselves do not say."""
        schema: Schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        self.refine(schema["properties"])
        return schema | {"description": self.description} | self.rule()

    def refine(self, properties: Schema) -> None:
        """Change single properties."""

    def rule(self) -> Schema:
        """Return the keywords that hold between properties."""
        return {}


class CreateRequestExtension(_RequestExtension):  # type: ignore[no-untyped-call]
    """The create request: which models there are, and what each of them can do."""

    target_class = "generations.serializers.CreateSerializer"
    component_name = "CreateVideoTaskRequest"
    description = "A video to be generated."

    def refine(self, properties: Schema) -> None:
        """Name the models."""
        properties["model"]["enum"] = MODELS
        properties["callback_url"]["pattern"] = URL_PATTERN

    def rule(self) -> Schema:
        """Not every model has every resolution."""
        return _RESOLUTION_RULE


class InputExtension(_RequestExtension):  # type: ignore[no-untyped-call]
    """The generation parameters: which references go together."""

    target_class = "generations.serializers.InputSerializer"
    component_name = "VideoInput"
    description = "The generation parameters. null for an optional field means that it is absent."

    def refine(self, properties: Schema) -> None:
        """Say what a prompt and a URL look like."""
        properties["prompt"]["pattern"] = PROMPT_PATTERN
        for name in _URLS:
            properties[name]["pattern"] = URL_PATTERN
        for name in _URL_LISTS:
            properties[name]["items"]["pattern"] = URL_PATTERN

    def rule(self) -> Schema:
        """The two generation types take different references."""
        return _FRAMES_RULE


def _webhook(event: str, summary: str, serializer: Any, example: Any) -> OpenApiWebhook:
    return OpenApiWebhook(
        name=event,
        decorator=extend_schema(
            operation_id="on" + "".join(word.capitalize() for word in event.split(".")),
            tags=["Webhooks"],
            summary=summary,
            description=(
                "Sent to the task's `callback_url`, at least once, in no promised order; the body is the same bytes at "
                "every attempt. With signing, verify the signature before anything is believed."
            ),
            request=serializer,
            responses=None,
            examples=[OpenApiExample(event.rpartition(".")[2], value=example)],
        ),
    )


COMPLETED_WEBHOOK = _webhook(
    "video.generation.completed",
    "A task has completed",
    replies.CompletedTaskReplySerializer,
    openapi_examples.COMPLETED,
)
FAILED_WEBHOOK = _webhook(
    "video.generation.failed", "A task has failed", replies.FailedTaskReplySerializer, openapi_examples.FAILED
)


def finish(result: Schema, generator: Any, **_: Any) -> Schema:
    """Add links, named enumerations, and what webhooks carry; drop what only the generator needs."""
    # The webhooks' bodies were drawn after the components had been collected.
    components = result["components"] = generator.registry.build({})
    _share_metadata(components["schemas"])
    for part in (result["paths"], components["schemas"]):
        _name_enumerations(part)
    for name, values in _ENUMS.items():
        names = {"x-enum-varnames": _VALUE_NAMES[name]} if name in _VALUE_NAMES else {}
        components["schemas"][name] = {"type": "string", "enum": values, **names}
    components["schemas"] = dict(sorted(components["schemas"].items()))
    _link(result["paths"])
    for event, path_item in result["webhooks"].items():
        path_item["post"]["parameters"] = _webhook_headers(event)
        path_item["post"]["responses"] = {
            "2XX": {"description": "Delivered, where it comes within 10 seconds in all."},
            "410": {"description": "Ends this delivery; it is not tried again."},
            "default": {"description": "Tried again later, 12 times in all over at least 72 hours. Never followed."},
        }
        path_item["post"]["security"] = []
    return result


def _share_metadata(schemas: Schema) -> None:
    """Make what is sent and what is echoed back one component."""
    properties = schemas["CreateVideoTaskRequest"]["properties"]
    schemas["Metadata"] = {**properties["metadata"], "type": "object"}
    properties["metadata"] = {"oneOf": [{"$ref": "#/components/schemas/Metadata"}, {"type": "null"}]}


def _name_enumerations(node: Any) -> None:
    """Put the name of an enumeration in the place of its values."""
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(members):
        if isinstance(value, dict):
            node[key] = _named(value)
        _name_enumerations(node[key])


def _named(schema: Schema) -> Schema:
    schema.pop("x-spec-enum-id", None)  # the generator's own
    if not isinstance(schema.get("enum"), list) or "type" not in schema:
        return schema
    values = [value for value in schema["enum"] if value is not None]
    name = next((name for name, known in _ENUMS.items() if known == values), None)
    if name is None:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("enum", "type")}
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {**({"oneOf": [reference, {"type": "null"}]} if None in schema["enum"] else reference), **rest}


_TASKS, _DELIVERIES = "/v1/videos/generations", "/v1/webhooks/deliveries"
# (path, method, status) of a reply, the pointer to an id in it, what the id is for, and a word on it.
_LINKS = (
    (_TASKS, "post", "201", "/data/id", "getVideoTask", "The task that was created."),
    (_TASKS, "get", "200", "/data/0/id", "getVideoTask", "The newest task of the list."),
    (_DELIVERIES, "get", "200", "/data/0/id", "getWebhookDelivery", "The newest delivery of the list."),
    (_DELIVERIES, "get", "200", "/data/0/id", "redeliverWebhook", "The newest delivery of the list."),
    (f"{_DELIVERIES}/{{id}}", "get", "200", "/data/id", "redeliverWebhook", "The delivery."),
    (f"{_DELIVERIES}/{{id}}/redeliver", "post", "202", "/data/id", "getWebhookDelivery", "The delivery."),
)


def _link(paths: Schema) -> None:
    for path, method, status, pointer, operation_id, description in _LINKS:
        links = paths[path][method]["responses"][status].setdefault("links", {})
        links[operation_id] = {
            "operationId": operation_id,
            "parameters": {"id": f"$response.body#{pointer}"},
            "description": description,
        }


def _webhook_headers(event: str) -> list[Schema]:
    return [
        _webhook_header("X-Seedancee2-Event", {"type": "string", "enum": [event]}, "What happened."),
        _webhook_header("X-Seedancee2-Delivery", {"type": "string"}, "The same at every attempt: tells repeats apart."),
        _webhook_header("X-Seedancee2-Attempt", {"type": "integer", "minimum": 1}, "1 for the first attempt."),
        _webhook_header(
            "X-Seedancee2-Signature",
            {"type": "string", "pattern": "^t=[0-9]+(,v1=[0-9a-f]{64})+$"},
            "Where signing is on: the time of this attempt, and the hex HMAC-SHA256 of `{t}.{raw body}` under your "
            "signing secret. While a secret is being replaced there are two `v1`, the newest first.",
            is_always=False,
        ),
    ]


def _webhook_header(name: str, schema: Schema, description: str, *, is_always: bool = True) -> Schema:
    return {"name": name, "in": "header", "required": is_always, "schema": schema, "description": description}
