"""Ark's error codes in our words: a closed table (Ark sheet §5). The same codes come over HTTP and in failed tasks."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Final

from providers.adapters.base import ErrorClass, Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Whose fault an error is, and whether it is about one model only."""

    error_class: ErrorClass
    is_model_only: bool = False
    reason: Reason | None = None


UNKNOWN: Final = Fault(ErrorClass.UNKNOWN)
_BUG: Final = Fault(ErrorClass.OUR_BUG)
_INPUT: Final = Fault(ErrorClass.CUSTOMER_INPUT)
_MODERATION: Final = Fault(ErrorClass.CUSTOMER_MODERATION)
_TRANSIENT: Final = Fault(ErrorClass.TRANSIENT)
_CAPACITY: Final = Fault(ErrorClass.CAPACITY)
_ACCOUNT: Final = Fault(ErrorClass.OUR_ACCOUNT)
_MODEL_CAPACITY: Final = Fault(ErrorClass.CAPACITY, is_model_only=True)
_MODEL_ACCESS: Final = Fault(ErrorClass.OUR_ACCOUNT, is_model_only=True)

_AUDIO_ALONE: Final = "reference_audio cannot be the only reference input"
# Sentences about how we put a request together; some of them also contain words that sound like a bad reference.
_OUR_SENTENCES: Final = (
    "cannot be mixed with",
    "role to be",
    "invalid role specified",
    "role must be specified",
    "expected at most one",
    "must be empty",
    "not supported for model",
)
_FIELD: Final = re.compile(r"`([^`]*)`")
# What can be wrong with a file wherever it is said, and what only in a sentence about a file.
_FETCHING: Final = re.compile(r"\b(download|urls?|resource|format)", re.IGNORECASE)
_MEASURES: Final = re.compile(r"\b(sizes?|duration|width|height|pixels?|ratio|fps|frame rate)\b", re.IGNORECASE)
_FILE: Final = re.compile(r"\b(reference|image|video|audio)", re.IGNORECASE)
_QUEUE_FULL: Final = re.compile(r"queue|pending|concurren", re.IGNORECASE)


def classify(code: str, message: str = "", param: str = "") -> Fault:
    """Say whose fault an error is; by the longest known prefix of its dotted code, UNKNOWN where there is none."""
    prefix = code
    while prefix:
        fault = FAULTS.get(prefix)
        if fault is not None:
            return fault if isinstance(fault, Fault) else fault(message, param)
        prefix = prefix.rpartition(".")[0]
    return UNKNOWN


def is_too_late(code: str) -> bool:
    """Tell whether a code says that a task runs and cannot be cancelled; two spellings were seen (Ark sheet §6)."""
    return code in ("InvalidAction.RunningTaskDeletion", "TaskRunningCannotCancel")


def _parameter(message: str, param: str) -> Fault:
    if _AUDIO_ALONE in message:
        return Fault(ErrorClass.CUSTOMER_INPUT, reason=Reason.AUDIO_ALONE)
    if any(sentence in message for sentence in _OUR_SENTENCES):
        return _BUG
    named = _FIELD.search(message)
    field = param or (named[1] if named else "")
    # The names of our own fields (`image_url`, `duration`) say nothing about the customer's file.
    words = _FIELD.sub("", message)
    if field and not field.startswith("content"):
        return _BUG
    is_about_file = bool(field) or _FILE.search(words)
    return _INPUT if _FETCHING.search(words) or (is_about_file and _MEASURES.search(words)) else _BUG


def _quota(message: str, _: str) -> Fault:
    # Three meanings, told apart by the words alone: a full queue passes, a used-up quota does not.
    return _CAPACITY if _QUEUE_FULL.search(message) else _ACCOUNT


FAULTS: Final[Mapping[str, Fault | Callable[[str, str], Fault]]] = {
    "MissingParameter": _BUG,
    "InvalidParameter": _parameter,
    "InvalidParameter.TaskTypeConstraint": _BUG,
    "InvalidImageURL.EmptyURL": _INPUT,
    "InvalidImageURL.InvalidFormat": _INPUT,
    "InvalidEndpoint.ClosedEndpoint": _MODEL_ACCESS,
    "InputTextSensitiveContentDetected": _MODERATION,
    "InputTextRiskDetection": _MODERATION,
    "InputImageSensitiveContentDetected": _MODERATION,
    "InputImageRiskDetection": _MODERATION,
    "InputVideoSensitiveContentDetected": _MODERATION,
    "InputAudioSensitiveContentDetected": _MODERATION,
    "SensitiveContentDetected": _MODERATION,
    "OutputVideoSensitiveContentDetected": _MODERATION,
    "OutputImageSensitiveContentDetected": _MODERATION,
    "OutputAudioSensitiveContentDetected": _MODERATION,
    "OutputTextSensitiveContentDetected": _MODERATION,
    "OutputTextRiskDetection": _MODERATION,
    "ContentSecurityDetectionError": _TRANSIENT,
    "AuthenticationError": _ACCOUNT,
    "InvalidAccountStatus": _ACCOUNT,
    "AccountOverdueError": _ACCOUNT,
    "OperationDenied.ServiceOverdue": _ACCOUNT,
    "OperationDenied.ServiceNotOpen": _ACCOUNT,
    "OperationDenied.PermissionDenied": _ACCOUNT,
    "AccessDenied": _ACCOUNT,
    "ModelNotOpen": _MODEL_ACCESS,
    "InvalidEndpointOrModel.NotFound": _MODEL_ACCESS,
    "InvalidEndpointOrModel.ModelIDAccessDisabled": _MODEL_ACCESS,
    "RateLimitExceeded.EndpointRPMExceeded": _MODEL_CAPACITY,
    "RateLimitExceeded.EndpointTPMExceeded": _MODEL_CAPACITY,
    "RateLimitExceeded.FoundationModelRPMExceeded": _MODEL_CAPACITY,
    "ModelAccountRpmRateLimitExceeded": _MODEL_CAPACITY,
    "ModelAccountTpmRateLimitExceeded": _MODEL_CAPACITY,
    "ModelAccountIpmRateLimitExceeded": _MODEL_CAPACITY,
    "APIAccountRpmRateLimitExceeded": _CAPACITY,
    "AccountRateLimitExceeded": _CAPACITY,
    "RequestBurstTooFast": _CAPACITY,
    "InflightBatchsizeExceeded": _CAPACITY,
    "ServerOverloaded": _CAPACITY,
    "QuotaExceeded": _quota,
    "SetLimitExceeded": _ACCOUNT,
    "InternalServiceError": _TRANSIENT,
}
