"""BytePlus ModelArk and Volcengine Ark, as the Ark sheet describes them: video tasks under /api/v3.

In a request, a URL with `404` in its path cannot be downloaded, one with `real-person` is refused for privacy, a prompt
with `forbidden-text` is refused. A prompt's **suffix flags win over the fields**: `a cat --dur 15` makes 15 seconds,
whatever `duration` says (sheet §10.4), so whoever forwards a customer's prompt must take them out.

Knobs that hold for a task from its submission, in its prompt or for all:

- `submit`: drop, hang, drop-before, html, late-html, late-5xx, no-id, `delay:SECONDS` (stored at once, answered late),
  `error:CODE[/VARIANT]` (codes and variants: `errors.SENTENCES`, such as `error:QuotaExceeded/trial`).
- `fail`: a code, CODE/VARIANT, or a sentence. `queued`, `running`: seconds.
- `status`: stuck, unknown, unknown-while-running; any other (expired, cancelled, canceled) is how it ends.
- `callback`: none, twice, reordered, late, tampered (says succeeded, with a foreign URL, while the task is queued),
  foreign-id, wrong-token (the last character of the path is another), not-json, huge (over 64 KB). Callbacks of Ark are
  neither signed nor dated: bad-signature, stale and unsigned are the usual ones.

Knobs that hold while they are set:

- `poll`: html, empty, 5xx, 429, drop, 404, 401, `error:CODE`. Those for all hold for the list too.
- `result`: no-url, gone, truncated, not-video, redirect, foreign, short, jpeg (the last frame).
- `delete`: drop (done, not answered), html, `error:CODE`. `numbers`: text (`duration` and tokens of GET as strings).
- `default-audio`: true or false, since the documents disagree; `max-seed`: 2147483647 unless set.
- `max-concurrent` (running tasks per model), `max-queued` (per model), `rate-limit` (creates per model and minute).
"""

from providers.emulators.ark.emulator import ArkEmulator

__all__ = ["ArkEmulator"]
