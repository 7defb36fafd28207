"""The bodies of successful replies, described for the OpenAPI document; `payloads` and `usage` make them."""

from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from generations.models import Generation
from generations.serializers import RESOLUTIONS
from seedancee2.api.schema import MomentField

ID_PATTERN = "^vid_[0-7][0-9a-hjkmnp-tv-z]{25}$"

_Status = Generation.Status


@extend_schema_field({"type": "string", "pattern": ID_PATTERN})
class PublicIdField(serializers.CharField):
    """The id of a task."""


class CreatedTaskSerializer(serializers.Serializer[Any]):
    """A task just accepted, with the credits held for it."""

    id = PublicIdField()
    status = serializers.ChoiceField([_Status.PENDING.value])
    model = serializers.CharField()
    credits_reserved = serializers.IntegerField(min_value=1)
    created_at = MomentField()


class TaskOutputSerializer(serializers.Serializer[Any]):
    """The files of a completed task."""

    video_url = serializers.URLField()
    thumbnail_url = serializers.URLField()
    last_frame_url = serializers.URLField(required=False, help_text="Only where `return_last_frame` was true.")


class TaskErrorSerializer(serializers.Serializer[Any]):
    """Why a task failed."""

    code = serializers.ChoiceField(Generation.ErrorCode.values)
    message = serializers.CharField()
    type = serializers.ChoiceField(["generation_error"])


@extend_schema_field({"$ref": "#/components/schemas/Metadata"})
class MetadataField(serializers.DictField):
    """The customer's own object, as it was sent; empty where none was."""


class PendingTaskSerializer(serializers.Serializer[Any]):
    """A task that waits to start."""

    id = PublicIdField()
    status = serializers.ChoiceField([_Status.PENDING.value])
    model = serializers.CharField()
    created_at = MomentField()
    metadata = MetadataField()


class ProcessingTaskSerializer(serializers.Serializer[Any]):
    """A task that is running."""

    id = PublicIdField()
    status = serializers.ChoiceField([_Status.PROCESSING.value])
    model = serializers.CharField()
    created_at = MomentField()
    metadata = MetadataField()


class CompletedTaskSerializer(serializers.Serializer[Any]):
    """A task whose video is ready."""

    id = PublicIdField()
    status = serializers.ChoiceField([_Status.COMPLETED.value])
    model = serializers.CharField()
    created_at = MomentField()
    completed_at = MomentField()
    credits_charged = serializers.IntegerField(min_value=0)
    credits_refunded = serializers.IntegerField(
        required=False, min_value=1, help_text="Only where the staff refunded the task later, in whole or in part."
    )
    output = TaskOutputSerializer()
    metadata = MetadataField()


class FailedTaskSerializer(serializers.Serializer[Any]):
    """A task that ended without a usable video."""

    id = PublicIdField()
    status = serializers.ChoiceField([_Status.FAILED.value])
    model = serializers.CharField()
    created_at = MomentField()
    credits_charged = serializers.IntegerField(min_value=0)
    credits_refunded = serializers.IntegerField(min_value=0)
    error = TaskErrorSerializer()
    metadata = MetadataField()


def _task(**kwargs: Any) -> Any:
    """A task in its present state; `status` tells which keys it has."""
    return PolymorphicProxySerializer(
        component_name="Task",
        serializers={
            _Status.PENDING.value: PendingTaskSerializer,
            _Status.PROCESSING.value: ProcessingTaskSerializer,
            _Status.COMPLETED.value: CompletedTaskSerializer,
            _Status.FAILED.value: FailedTaskSerializer,
        },
        resource_type_field_name="status",
        **kwargs,
    )


class ModelDurationSerializer(serializers.Serializer[Any]):
    """The shortest and longest video of a model, in seconds."""

    min = serializers.IntegerField(min_value=1)
    max = serializers.IntegerField(min_value=1)


class ModelSerializer(serializers.Serializer[Any]):
    """A model that can be named in a request."""

    id = serializers.CharField()
    status = serializers.ChoiceField(["active"])
    resolutions = serializers.ListField(child=serializers.ChoiceField(RESOLUTIONS))
    duration = ModelDurationSerializer()


class UsageSumsSerializer(serializers.Serializer[Any]):
    """Jobs by status, and credits of those that have ended."""

    total_jobs = serializers.IntegerField(min_value=0)
    pending_jobs = serializers.IntegerField(min_value=0)
    processing_jobs = serializers.IntegerField(min_value=0)
    completed_jobs = serializers.IntegerField(min_value=0)
    failed_jobs = serializers.IntegerField(min_value=0)
    credits_charged = serializers.IntegerField(min_value=0)
    credits_refunded = serializers.IntegerField(min_value=0)
    net_credits = serializers.IntegerField(help_text="Charged less refunded.")


class ModelUsageSerializer(UsageSumsSerializer):
    """The sums of one model."""

    model = serializers.CharField()


class DayUsageSerializer(UsageSumsSerializer):
    """The sums of one day (UTC)."""

    date = serializers.DateField()


class UsageRangeSerializer(serializers.Serializer[Any]):
    """The range that was summed, both ends included."""

    start = MomentField()
    end = MomentField()


class UsageSerializer(serializers.Serializer[Any]):
    """Jobs and credits in all, by model, and by day."""

    range = UsageRangeSerializer()
    summary = UsageSumsSerializer()
    by_model = ModelUsageSerializer(many=True)
    timeline = DayUsageSerializer(many=True)


@extend_schema_serializer(many=False)
class CreatedTaskReplySerializer(serializers.Serializer[Any]):
    """The reply to a create request."""

    data = CreatedTaskSerializer()  # type: ignore[assignment] # the page's key is also the name of a property of DRF's


@extend_schema_serializer(many=False)
class TaskReplySerializer(serializers.Serializer[Any]):
    """One task."""

    data = _task()


@extend_schema_serializer(many=False)
class TaskListReplySerializer(serializers.Serializer[Any]):
    """Tasks, newest first."""

    data = _task(many=True)


@extend_schema_serializer(many=False)
class CompletedTaskReplySerializer(serializers.Serializer[Any]):
    """The body of a webhook for a completed task: byte for byte the reply to getting it at that moment."""

    data = CompletedTaskSerializer()  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class FailedTaskReplySerializer(serializers.Serializer[Any]):
    """The body of a webhook for a failed task: byte for byte the reply to getting it at that moment."""

    data = FailedTaskSerializer()  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class ModelListReplySerializer(serializers.Serializer[Any]):
    """The active models."""

    data = ModelSerializer(many=True)  # type: ignore[assignment]


@extend_schema_serializer(many=False)
class UsageReplySerializer(serializers.Serializer[Any]):
    """A usage summary."""

    data = UsageSerializer()  # type: ignore[assignment]
