"""Replicate's predictions API with the bytedance/seedance-2.0 family (sheet replicate.md).

Knobs, each for all tasks or as `[emulate:NAME=VALUE]` in one prompt:

* `submit`: drop, hang, drop-before, html, late-5xx, no-id, error:CODE; CODE is a status (400 401 402 403 404 422 429
  500 502 503 504) or 402/spending-limit, 422/url, 429/no-retry-after, 429/low-credit.
* `fail`: a key of `problems.FAILURES` (E005, validation, download, 404, director, …), E1000 to E1999, or free text.
* `status`: stuck, unknown, failed, canceled, aborted.
* `poll`: html, empty, 5xx, 429, drop, 404, 401; `list` and `secret` break the list and the signing secret likewise.
* `result`: no-url, list, empty-list, removed, no-metrics, gone, truncated, not-video, redirect, foreign, short.
  A foreign host and the target of a redirect are `localhost`, where the same file can really be had.
* `cancel`: slow (a second), ignored, and the words of `poll`.
* `callback`: none, twice (the same id), reordered (`start` after `completed`), late, unsigned, bad-signature, stale,
  future, tampered, re-serialised, second-signature (a wrong entry before the right one).
* `queued`, `running`: seconds.

For all tasks only: `prefer`=ignore; `max-concurrent`=N, the others stay `starting`; `rate-limit`=N creations a minute
and five times as many other requests (really 600), or `low-credit` for 6 a minute and 1 a second; `page-size`=N.
Where the sheet is unsure: `full-hd`=yes (1080p on pro), `mini`=absent, `unknown-fields`=ignore, `rules`=schema (what
the model would refuse once it runs is a 422), `webhook-echo`=no (predictions do not repeat their webhook).
"""

from providers.emulators.replicate.emulator import ReplicateEmulator

__all__ = ["ReplicateEmulator"]
