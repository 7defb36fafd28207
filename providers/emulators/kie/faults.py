"""What goes wrong at Kie, and in which words (Kie sheet §4)."""

import re

from providers.emulators.server import Response, json_response

MESSAGES = {
    400: "The request is malformed",
    401: "You do not have access permissions",
    402: "Credits insufficient",
    404: "The requested resource does not exist",
    422: "Parameter validation failed",
    429: "Your call frequency is too high, please try again later",
    433: "The spending limit of this sub-key is reached",
    455: "The service is under maintenance",
    500: "Server exception, please try again later",
    501: "Generation failed",
    505: "This feature is disabled",
}
VARIANTS = {
    "422/url": "reference_image_urls: the URL is unreachable",
    "422/format": "reference_image_urls: the file format is not supported",
    "422/size": "reference_image_urls: the file is too large",
    "422/duration": "reference_video_urls: the total duration of the videos must not exceed 15 seconds",
    "429/rate": "More than 20 new tasks in 10 seconds",
    "429/concurrent": "Too many concurrent tasks",
}
SENTENCES = {
    # "information" has "format" in it, which is another class.
    "sensitive": ("500", "The request failed because the output video may contain sensitive information."),
    "copyright": ("500", "The request failed because the input may be related to copyright restrictions."),
    "real-person": ("500", "The request failed because the input image may contain real person."),
    "policy": ("500", "The request failed because the content is against the usage policy."),
    "violation": ("500", "The request failed because the input text may violate platform rules."),
    "inappropriate": ("500", "The request failed because of inappropriate content."),
    "moderation": ("500", "The output did not pass moderation."),
    "safety": ("500", "The request was rejected by the safety system."),
    "download": ("422", "Failed to download the reference image."),
    "unreachable": ("422", "The URL of the reference video is unreachable."),
    "format": ("422", "The format of the reference audio is not supported."),
    "too-large": ("422", "The reference image is too large."),
    "resolution": ("422", "The resolution of the reference video is not supported."),
    "pixel": ("422", "The reference image must have at least 300 pixels per side."),
    "duration": ("422", "The duration of the reference video must be at least 2 seconds."),
    "timeout": ("500", "The generation ended with a timeout."),
    "internal": ("500", "An internal error occurred."),
    "try-again": ("500", "Something went wrong, please try again later."),
    "busy": ("500", "The service is busy."),
    "unheard-of": ("501", "The muse did not come."),
}
_CODED_SENTENCE = re.compile(r"(\d{3}):(.+)", re.DOTALL)


def refusal(code: int, text: str = "", *, text_key: str = "msg", status: int = 200) -> Response:
    """Return an error: HTTP 200 with the number in the body, unless `status` says otherwise."""
    message = text or MESSAGES.get(code, "Unknown error")
    return json_response({"code": code, text_key or "msg": message, "data": None}, status)


def text_of(variant: str) -> str:
    """Return the sentence of `CODE/variant`; empty where there is none of its own."""
    return VARIANTS.get(variant, "")


def failure_of(word: str) -> tuple[str, str] | None:
    """Return `failCode` and `failMsg` for a value of the knob `fail`; None where it is empty."""
    if not word:
        return None
    if word in SENTENCES:
        return SENTENCES[word]
    if word.isdecimal():
        return word, MESSAGES.get(int(word), "Unknown error")
    if coded := _CODED_SENTENCE.fullmatch(word):
        return coded[1], coded[2]
    return "501", word
