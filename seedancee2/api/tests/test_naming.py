"""Which keys are typing errors of ours, and which are simply somebody else's."""

import time

import pytest

from seedancee2.api import naming

NAMES = ("prompt", "image_urls", "video_url", "video_urls", "duration", "aspect_ratio", "seed", "model", "input")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("videoUrl", "video_url"),
        ("VIDEO-URLS", "video_urls"),
        ("video urls", "video_urls"),
        ("image_url", "image_urls"),
        ("imageurls", "image_urls"),
        ("duratoin", "duration"),
        ("durration", "duration"),
        ("duracion", "duration"),
        ("aspect.ratio", "aspect_ratio"),
        ("sed", "seed"),
        ("esed", "seed"),
        ("modle", "model"),
        ("inputs", "input"),
    ],
)
def test_typing_errors_lead_to_the_name(key: str, name: str) -> None:
    assert naming.near_miss(key, NAMES) == name


@pytest.mark.parametrize(
    "key", ["provider", "status", "speed", "mode", "ratio", "negative_prompt", "n", "", "id", "output", "x" * 5000, "é"]
)
def test_other_words_are_left_alone(key: str) -> None:
    assert naming.near_miss(key, NAMES) is None


def test_many_long_keys_are_told_apart_quickly() -> None:
    started = time.process_time()
    for number in range(200):
        naming.near_miss(f"key_number_{number}", NAMES)

    assert time.process_time() - started < 1
