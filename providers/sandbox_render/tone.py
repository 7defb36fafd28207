"""The sandbox video's sound: a soft chord whose notes the seed decides."""

import array
import math
import random
from collections.abc import Iterator
from fractions import Fraction

from av.audio.frame import AudioFrame

SAMPLE_RATE = 48_000
LAYOUT = "mono"
FORMAT = "fltp"
_FADE = 2_400
_VOLUME = 0.08


def chunks(*, seed: str, duration: int, per_second: int) -> Iterator[AudioFrame]:
    """Yield the sound in order, `duration` seconds in all, in `per_second` pieces each second."""
    second = _one_second(seed)
    total = duration * SAMPLE_RATE
    count = SAMPLE_RATE // per_second
    for start in range(0, total, count):
        offset = start % SAMPLE_RATE
        samples = second[offset : offset + count]
        if start < _FADE or start + count > total - _FADE:
            # Faded at both ends: a tone that starts or stops at once cracks.
            for index in range(count):
                at = start + index
                samples[index] *= min(1.0, at / _FADE, (total - at) / _FADE)
        frame = AudioFrame(format=FORMAT, layout=LAYOUT, samples=count)
        frame.planes[0].update(samples.tobytes())
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = start
        yield frame


def _one_second(seed: str) -> "array.array[float]":
    """Compute one second, which repeats without a seam since every frequency is a whole number."""
    chance = random.Random(f"tone:{seed}")  # noqa: S311 - repeatable is what it must be
    root = chance.randrange(165, 330)
    step = 2 * math.pi / SAMPLE_RATE
    sin = math.sin
    low, high = root * step, root * 3 // 2 * step
    return array.array(
        "f",
        (_VOLUME * (sin(low * n) + 0.5 * sin(high * n)) * (0.8 + 0.2 * sin(step * n)) for n in range(SAMPLE_RATE)),
    )
