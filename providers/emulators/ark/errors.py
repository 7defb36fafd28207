"""Ark's error codes with their HTTP status and sentence (Ark sheet §5); the same codes end tasks."""

from typing import Any

_TYPES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    429: "TooManyRequests",
    500: "InternalServerError",
}


def _sensitive(what: str) -> str:
    return f"The request failed because the {what} may contain sensitive information."


_RATE = "The request failed because it exceeds the rate limit of {}."

# Keyed by code, or by CODE/VARIANT where one code has several meanings that only the sentence tells apart.
SENTENCES: dict[str, tuple[int, str]] = {
    "MissingParameter": (400, "The request failed because it is missing a required parameter."),
    "InvalidParameter": (400, "A parameter specified in the request is not valid."),
    "InvalidParameter/download": (400, "resource download failed"),
    "InvalidParameter/url": (400, "the url of the resource is not valid"),
    "InvalidParameter/format": (400, "the format of the resource is not supported"),
    "InvalidParameter/size": (400, "the size of the resource exceeds the limit"),
    "InvalidParameter/duration": (400, "the duration of the video must be between 2 and 15 seconds"),
    "InvalidParameter/must-be-empty": (400, "service_tier is not supported for this model and must be empty"),
    "InvalidParameter/role": (400, "role must be specified for image contents"),
    "InvalidParameter/mixed": (400, "first/last frame content cannot be mixed with reference media content"),
    "InvalidParameter.TaskTypeConstraint": (400, "This type of task requires ratio=adaptive and duration=-1."),
    "InvalidImageURL": (400, "The image url specified in the request is not valid."),
    "InvalidImageURL.EmptyURL": (400, "The image url specified in the request is empty."),
    "InvalidImageURL.InvalidFormat": (400, "The format of the image url specified in the request is not valid."),
    "InvalidEndpoint.ClosedEndpoint": (400, "The request targeted an endpoint that is closed or not available."),
    "InputTextSensitiveContentDetected": (400, _sensitive("input text")),
    "InputTextRiskDetection": (400, _sensitive("input text")),
    "InputImageSensitiveContentDetected": (400, _sensitive("input image")),
    "InputImageSensitiveContentDetected.PrivacyInformation": (
        400,
        "The request failed because the input image may contain real person.",
    ),
    "InputImageRiskDetection": (400, _sensitive("input image")),
    "InputVideoSensitiveContentDetected": (400, _sensitive("input video")),
    "InputAudioSensitiveContentDetected": (400, _sensitive("input audio")),
    "SensitiveContentDetected": (400, _sensitive("input text")),
    "OutputVideoSensitiveContentDetected": (400, _sensitive("output video")),
    "OutputImageSensitiveContentDetected": (400, _sensitive("output image")),
    "OutputTextSensitiveContentDetected": (400, _sensitive("output text")),
    "OutputTextRiskDetection": (400, _sensitive("output text")),
    "OutputAudioSensitiveContentDetected": (400, _sensitive("output audio")),
    "ContentSecurityDetectionError": (400, "The request failed because the content security check failed."),
    "AuthenticationError": (401, "The API key or AK/SK in the request is missing or invalid."),
    "InvalidAccountStatus": (401, "The request failed because the account status is not valid."),
    "AccountOverdueError": (403, "The request failed because your account has an overdue balance."),
    "OperationDenied": (403, "The operation is denied."),
    "OperationDenied.ServiceOverdue": (403, "The service is not available because your account is overdue."),
    "OperationDenied.ServiceNotOpen": (403, "The service has not been activated for your account."),
    "OperationDenied.PermissionDenied": (403, "The request failed because of missing permissions."),
    "AccessDenied": (403, "The request failed because you do not have access to the requested resource."),
    "ModelNotOpen": (
        404,
        "Your account has not activated the model. Please activate the model service in the console.",
    ),
    "InvalidEndpointOrModel.NotFound": (404, "The model or endpoint does not exist or you do not have access to it."),
    "InvalidEndpointOrModel.ModelIDAccessDisabled": (404, "Access to models by their id has been disabled."),
    "NotFound": (404, "The specified resource is not found."),
    "InvalidAction": (409, "The action is not allowed in the current state of the task."),
    "InvalidAction.RunningTaskDeletion": (409, "The task is running and cannot be deleted."),
    "TaskRunningCannotCancel": (409, "The task is running and cannot be cancelled."),
    "RateLimitExceeded.EndpointRPMExceeded": (429, _RATE.format("requests per minute for this endpoint")),
    "RateLimitExceeded.EndpointTPMExceeded": (429, _RATE.format("tokens per minute for this endpoint")),
    "RateLimitExceeded.FoundationModelRPMExceeded": (429, _RATE.format("requests per minute for this model")),
    "RateLimitExceeded": (429, _RATE.format("this account")),
    "ModelAccountRpmRateLimitExceeded": (429, _RATE.format("requests per minute for this model and account")),
    "ModelAccountTpmRateLimitExceeded": (429, _RATE.format("tokens per minute for this model and account")),
    "ModelAccountIpmRateLimitExceeded": (429, _RATE.format("images per minute for this model and account")),
    "APIAccountRpmRateLimitExceeded": (429, _RATE.format("requests per minute for this API and account")),
    "AccountRateLimitExceeded": (429, _RATE.format("this account")),
    "RequestBurstTooFast": (429, "The request failed because the number of requests rose too fast."),
    "InflightBatchsizeExceeded": (429, "The request failed because too many requests are in flight."),
    "ServerOverloaded": (429, "The service is currently unable to handle more requests."),
    "QuotaExceeded": (429, "The request failed because there are too many queued tasks for this model."),
    "QuotaExceeded/trial": (429, "The request failed because your free trial quota is used up."),
    "QuotaExceeded/period": (429, "The request failed because you have exceeded the periodic quota of this account."),
    "SetLimitExceeded": (429, "The request failed because the spending limit set for this model is reached."),
    "InternalServiceError": (500, "The service encountered an unexpected internal error."),
}
_PARAMS = {
    "InvalidParameter/download": "content[1].image_url",
    "InvalidParameter/url": "content[1].image_url",
    "InvalidParameter/format": "content[1].image_url",
    "InvalidParameter/size": "content[1].image_url",
    "InvalidParameter/duration": "content[1].video_url",
    "InvalidParameter/must-be-empty": "service_tier",
    "InvalidParameter/role": "content",
    "InvalidParameter/mixed": "content",
}


class Refused(Exception):
    """A request that Ark answers with an error, or the end of a task that failed."""

    def __init__(self, word: str, text: str = "", param: str = "") -> None:
        """Take a code or CODE/VARIANT, and where the usual sentence will not do, another one."""
        known = _longest_known(word)
        self.status, sentence = SENTENCES[known] if known else (400, "The request failed.")
        self.code = word.partition("/")[0]
        self.param = param or _PARAMS.get(word, "")
        text = text or sentence
        if self.param and self.code == "InvalidParameter":
            text = f"The parameter `{self.param}` specified in the request is not valid: {text}."
        self.text = text
        super().__init__(text)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the body of the HTTP answer."""
        kind = _TYPES.get(self.status, "BadRequest")
        return {"error": {**self.ending(request_id), "param": self.param, "type": kind}}

    def ending(self, request_id: str) -> dict[str, Any]:
        """Return what a failed task says of itself."""
        return {"code": self.code, "message": f"{self.text} Request id: {request_id}"}


def failure(word: str) -> Refused:
    """Return how a task fails for this code, CODE/VARIANT, or sentence."""
    return Refused("InternalServiceError", word) if " " in word else Refused(word)


def _longest_known(word: str) -> str:
    if word in SENTENCES:
        return word
    code = word.partition("/")[0]
    while code and code not in SENTENCES:
        code = code.rpartition(".")[0]
    return code
