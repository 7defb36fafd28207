"""Prompts as the models of ByteDance read them, whoever sells them."""

import re

from providers.adapters.base import JobRequest

# Suffix flags of 1.x, which may still be obeyed and would change what was priced (Ark sheet §10.4); `frames` sets
# a duration too. A dash instead of the hyphens keeps every word where it was and cannot make up another flag.
_FLAG = re.compile(
    r"(?<!-)-{2,}+(?=\s*+(?:rs|resolution|rt|ratio|dur|duration|frames|fps|framespersecond|wm|watermark|seed|cf|camerafixed)"
    r"(?![a-z]))",
    re.IGNORECASE,
)
# Only ASCII counts as a neighbour: Chinese text has no spaces around its references.
_REFERENCE = re.compile(
    r"(?<![A-Za-z0-9_])@(image|video|audio) ?([1-9][0-9]?)(?![A-Za-z0-9_]|\.[A-Za-z])", re.IGNORECASE
)


def rewrite(request: JobRequest, *, tag: str) -> str:
    """Return the prompt without suffix flags, and with each `@Image1` that there is one for written as `tag` says.

    In a tag `{kind}` stands for Image, Video or Audio and `{number}` for the number from 1 on.
    """
    counts = {
        "Image": len(request.image_urls) or bool(request.first_frame_url) + bool(request.last_frame_url),
        "Video": len(request.video_urls),
        "Audio": len(request.audio_urls),
    }

    def written(match: re.Match[str]) -> str:
        kind, number = match[1].capitalize(), int(match[2])
        return tag.replace("{kind}", kind).replace("{number}", str(number)) if number <= counts[kind] else match[0]

    return _FLAG.sub("—", _REFERENCE.sub(written, request.prompt))
