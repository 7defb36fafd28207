"""How channels do, counted in the newest jobs only: no index leads to the time of an end, and none is worth it."""

import dataclasses
import datetime as dt

from django.db import connection

from seedancee2.lib import clock

NEWEST = 20_000  # jobs looked at, of all channels together
HOURS = 24


@dataclasses.dataclass(frozen=True, slots=True)
class Hour:
    """What ended within an hour, how much of it well, and the seconds that half of those took at most."""

    begins_at: dt.datetime
    ended_count: int
    succeeded_count: int
    seconds: float | None

    @property
    def percentage(self) -> int | None:
        """Return how many of a hundred ended well."""
        return round(100 * self.succeeded_count / self.ended_count) if self.ended_count else None


def hours(*, channel_id: int) -> list[Hour]:
    """Return a channel's last 24 hours, the oldest first, those without an end included."""
    end = clock.now().replace(minute=0, second=0, microsecond=0)
    begins = [end - dt.timedelta(hours=age) for age in reversed(range(HOURS))]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT date_trunc('hour', finished_at, 'UTC'), count(*), count(*) FILTER (WHERE status = 'succeeded'),
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - submitted_at))
                       FILTER (WHERE status = 'succeeded')
              FROM (SELECT channel_id, status, submitted_at, finished_at FROM providers_upstreamjob
                     ORDER BY id DESC LIMIT %s) newest
             WHERE channel_id = %s AND finished_at >= %s
             GROUP BY 1
            """,
            [NEWEST, channel_id, begins[0]],
        )
        found = {row[0]: row for row in cursor.fetchall()}
    return [Hour(*found.get(begin, (begin, 0, 0, None))) for begin in begins]
