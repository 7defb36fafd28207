"""Forgetting what a customer sent: prompts, references and words of theirs in our books about providers.

What was paid, when, to whom and under which id stays.
"""

from collections.abc import Collection, Sequence
from typing import Final

from django.db import connection

_NOTHING: Final = (
    '{"prompt": "", "image_urls": [], "video_urls": [], "audio_urls": [], "first_frame_url": null,'
    ' "last_frame_url": null}'
)
_STATEMENTS: Final = (
    # In one order, as `among` takes them.
    "SELECT FROM providers_upstreamjob WHERE reference = ANY(%(references)s) ORDER BY id FOR NO KEY UPDATE",
    # An output's address goes too; that there was one stays known, for the books of our costs ask for it.
    """
    UPDATE providers_upstreamjob
       SET request = request || %(nothing)s::jsonb, error_detail = '',
           result = CASE WHEN result IS NOT NULL THEN '{}'::jsonb END
     WHERE reference = ANY(%(references)s)
    """,
    """
    UPDATE providers_upstreamcall SET request = '', response = ''
     WHERE job_id IN (SELECT id FROM providers_upstreamjob WHERE reference = ANY(%(references)s))
    """,
    # The sandbox is asked about a run for a day more and reads its directives, so that these words alone stay.
    r"""
    UPDATE providers_sandboxrun s
       SET request = s.request || %(nothing)s::jsonb || jsonb_build_object('prompt', array_to_string(ARRAY(
               SELECT found[1] FROM regexp_matches(s.request ->> 'prompt', '(\[sandbox:[a-z0-9=.-]+\])', 'gi') found
           ), ' '))
      FROM providers_upstreamjob j
     WHERE j.callback_token_digest = s.callback_token_digest AND j.reference = ANY(%(references)s)
    """,
)


def erase(references: Sequence[str]) -> None:
    """Erase what was sent and said for these tasks, all of which have ended; in the caller's transaction."""
    with connection.cursor() as cursor:
        for statement in _STATEMENTS:
            cursor.execute(statement, {"nothing": _NOTHING, "references": list(references)})


def among(job_ids: Collection[int]) -> set[int]:
    """Return which of these jobs were erased; none of the others is until the caller's transaction has ended.

    Whoever keeps words about a job asks first: a provider may speak of it when it has long been forgotten here.
    """
    with connection.cursor() as cursor:
        # No request comes without a prompt. The rows are locked before they are looked at: a filter would see them as
        # they were before an erasure that is about to be committed.
        cursor.execute(
            """
            WITH asked AS MATERIALIZED (
                SELECT id, request ->> 'prompt' AS prompt FROM providers_upstreamjob WHERE id = ANY(%s)
                 ORDER BY id FOR SHARE
            )
            SELECT id FROM asked WHERE prompt = ''
            """,
            [list(job_ids)],
        )
        return {row[0] for row in cursor.fetchall()}
