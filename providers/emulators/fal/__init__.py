"""fal.ai's queue for Seedance 2.0 on loopback, written from its documents (the fal sheet).

Knobs of the emulator (`PUT /_emulator/knobs`) or of one task (`[emulate:NAME=VALUE]` in its prompt):

- `submit`: `drop`, `hang`, `drop-before`, `html` (nginx 502, not stored), `late-5xx` (stored, nginx 504 without
  `x-fal-request-id`), `late-5xx/with-id` (stored, 500 that has it), `no-id`, `error:CODE`.
- `fail`: `CODE`, or a sentence of one's own (422 with that as `detail`).
- CODE is a type of `errors.MODEL` (COMPLETED, then its status on the result) or `errors.INFRASTRUCTURE` (COMPLETED with
  `error_type`), a key of `errors.GATEWAY` (`403`, `403/access`, `403/abuse`, `429/rate`, …), or a type and variants:
  `/string`, `/object`, `/no-detail` (shape of `detail`), `/person` (reason `partner_validation_failed`), the name of a
  field (`/image_urls`), `/retryable`, `/not-retryable`, `/no-header`, `/older` (`X-Fal-Needs-Retry`), `/user` (whose
  timeout), `/early` (fails after a tenth of its time).
- `status`: `stuck`, `unknown` (an undocumented word while running, for ever), `queued` (never starts).
- `poll`: what the status answers: `html`, `html-200`, `empty`, `5xx`, `429`, `drop`, `hang`, `404`, `401`.
- `response`: the same words for the result, and `race` (the first read after COMPLETED is 400 "still in progress").
- `result`: `no-url`, `gone`, `truncated` (half the file), `not-video`, `redirect` and `foreign` (to the name
  `localhost`, where the file does lie), `short` (half the length).
- `callback`: `none`, `twice`, `late`, `reordered` or `early` (before the end, as there is but one event),
  `bad-signature`, `foreign-key` (signed with a key nobody published), `rotated-key` (with one published just now),
  `stale`, `future` (600 s off, validly signed), `unsigned`, `tampered`, `mismatched-id` (header and body differ),
  `unknown-id`, `payload-error`.
- `callback-retry`: seconds before the second attempt, 15; doubled each time, 10 attempts.
- `cancel`: `ignored` (202 for a running task, which then finishes), `too-late`, `not-found`, and the words of `poll`.
- `jwks`: the words of `poll`. `signing-key`: any word makes another key of it, at once.
- `queued`, `running`: seconds. `retried`: `1` (another `gateway_request_id` in the webhook).
- `validation`: `job` (a broken input is taken, and fails as a task). `pending-code`: `200` instead of 202.
  `response-url`: `suffixed` (ends in `/response`). `store-io`: `kept` (`X-Fal-Store-IO: 0` empties no result).
- Of the whole emulator: `max-concurrent` (0 is unlimited), `rate-limit` (submissions a second).

4k is accepted for the pro models and drawn at 1080p; a duration of `auto` is 5 seconds.
"""

from providers.emulators.fal.emulator import STARTING_CONCURRENCY, FalEmulator

__all__ = ["STARTING_CONCURRENCY", "FalEmulator"]
