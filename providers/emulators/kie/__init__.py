"""Kie.ai's market API for the Seedance 2 family, after the Kie sheet; what that only infers is a knob.

Errors are HTTP 200 with the number in the body's `code`; a real 404 is for unknown routes. There is no cancel and no
list. References are not fetched: `?seconds=N` in the URL of one says how long it plays (1 second where it does not).

Knobs; `fail`, `queued`, `running` and `callback` are read when a task is created, the others whenever they matter.
Callbacks leave by the real clock: `skip` does not hurry them, and what `status` holds at creation never sends one.

submit      drop, hang, drop-before, html, no-id as everywhere; late-5xx (stored, then code 500), late-html (stored,
            then the gateway's 502), no-data (stored, then `data: null`), empty (stored, then 200 without a body),
            error:CODE with CODE of sheet §4; variants 422/{url,format,size,duration} and 429/{rate,concurrent}
fail        a CODE of sheet §4, a name in `faults.SENTENCES`, free text (code 501), or CODE:free text
status      stuck (stays generating), waiting, queuing, unknown (state "paused"), missing (no state), no-data
poll        html, html-200, empty, 5xx (code 500), 429, drop, hang, 404, 401, or any other CODE
result      gone, truncated, not-video, redirect, foreign, short as everywhere; no-url (`resultJson` is ""), null-json,
            bad-json, empty-list, late-url (no-url for 2 s), bare (no ".mp4" in the path)
callback    none, twice, reordered (the end, then "generating"), bad-signature, stale, unsigned, tampered, late,
            early (at once), no-timestamp, no-signature, task_id (the id under that key), other-id (of another task);
            several may be joined by commas
last-frame  second-url (default), first-url, lastFrameUrl, last_frame_url, firstFrameUrl, missing
unknown-id  404 (default), 422, null: how recordInfo answers for a task that it does not know
lag         seconds in which recordInfo has `data: null` for a new task
adaptive    refused: as an aspect ratio
extra-keys  refused: in `input`, where they are ignored otherwise
text-key    message: instead of `msg`
fail-code   int: instead of a string
param       empty, null: instead of the request
credits     what `creditsConsumed` says, of failed tasks too
rate-limit, max-concurrent   numbers (the sheet: 20 in 10 s, 100 open); what is above is refused with 429
"""

from providers.emulators.kie.emulator import KieEmulator

__all__ = ["KieEmulator"]
