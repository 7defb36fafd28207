"""Claims of deliveries: endpoint by endpoint, so that none, however slow or full, holds up another.

An endpoint has few deliveries in flight. The endpoints that are due are read from an index of their own, oldest first:
a claim costs the same whatever the backlog and however many endpoints have one. What is not known to be quick has only
a share of a process's threads, and no organization has more than half of any share.
"""

import datetime as dt
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from seedancee2.lib import clock
from webhooks.models import LONGEST_PAUSE, Delivery, Endpoint

Standing = Endpoint.Standing

MAX_IN_FLIGHT: Final = 2  # of one endpoint; one while it is paused or probed
GREEDY: Final = 8  # organizations with so many due endpoints that a claim looks past them, at most
SPARE: Final = 16  # endpoints looked at beyond the free places, since some that are due have nothing to claim

_PLACES: Final = f"CASE WHEN endpoint.paused_until IS NULL THEN {MAX_IN_FLIGHT} ELSE 1 END"

# Locked, so that whoever writes a delivery of theirs (the trigger of Delivery) waits until they have been looked at.
_TAKE: Final = """
    SELECT one.id, one.organization_id * 4 + class.standing, class.standing
      FROM unnest(%(standings)s::int[], %(rooms)s::int[]) AS class (standing, room)
     CROSS JOIN LATERAL (
        SELECT endpoint.id, endpoint.organization_id FROM webhooks_endpoint endpoint
         WHERE endpoint.standing = class.standing AND endpoint.due_at <= %(now)s
           AND NOT endpoint.organization_id * 4 + endpoint.standing = ANY(%(full)s::bigint[])
         ORDER BY endpoint.due_at LIMIT class.room + CASE WHEN class.room > 0 THEN %(spare)s ELSE 0 END
           FOR NO KEY UPDATE SKIP LOCKED
     ) one
"""

_LEASE: Final = f"""
    WITH looked AS MATERIALIZED (
        SELECT endpoint.id, endpoint.organization_id, endpoint.standing,
               CASE WHEN endpoint.paused_until > %(now)s THEN %(now)s - %(longest_pause)s ELSE %(now)s END AS ripe_at,
               {_PLACES} - (
                    SELECT count(*) FROM webhooks_delivery held
                     WHERE held.endpoint_id = endpoint.id AND held.leased_until > %(now)s
               ) AS free
          FROM webhooks_endpoint endpoint WHERE endpoint.id = ANY(%(endpoints)s)
    ),
    ripe AS MATERIALIZED (
        SELECT looked.organization_id, looked.standing, one.delivery_id, one.due_at,
               row_number() OVER (PARTITION BY looked.organization_id, looked.standing ORDER BY one.due_at) AS nth
          FROM looked CROSS JOIN LATERAL (
            SELECT delivery.delivery_id, delivery.due_at FROM webhooks_delivery delivery
             WHERE delivery.endpoint_id = looked.id AND delivery.due_at <= looked.ripe_at
               AND (delivery.leased_until IS NULL OR delivery.leased_until <= %(now)s)
             ORDER BY delivery.due_at LIMIT GREATEST(0, looked.free)
          ) one
    ),
    fair AS MATERIALIZED (
        SELECT ripe.delivery_id, ripe.due_at, class.room,
               row_number() OVER (PARTITION BY ripe.standing ORDER BY ripe.due_at) AS nth
          FROM ripe
          JOIN unnest(%(standings)s::int[], %(rooms)s::int[], %(halves)s::int[]) AS class (standing, room, half)
               USING (standing)
          LEFT JOIN unnest(%(keys)s::bigint[], %(counts)s::int[]) AS held (key, count)
               ON held.key = ripe.organization_id * 4 + ripe.standing
         WHERE ripe.nth <= class.half - COALESCE(held.count, 0)
    ),
    chosen AS MATERIALIZED (
        SELECT delivery.delivery_id
          FROM webhooks_delivery delivery JOIN fair USING (delivery_id)
         WHERE fair.nth <= fair.room AND delivery.due_at <= %(now)s
           AND (delivery.leased_until IS NULL OR delivery.leased_until <= %(now)s)
         ORDER BY fair.due_at LIMIT %(limit)s FOR UPDATE OF delivery SKIP LOCKED
    )
    UPDATE webhooks_delivery delivery
       SET lease_token = %(token)s, leased_until = %(until)s
      FROM looked
     WHERE delivery.delivery_id IN (SELECT delivery_id FROM chosen) AND looked.id = delivery.endpoint_id
 RETURNING delivery.delivery_id, delivery.organization_id, delivery.endpoint_id, delivery.host, delivery.due_at,
           delivery.lease_token, delivery.leased_until, looked.standing
"""  # noqa: S608 - made of constants only

# When an endpoint next needs a look: with all places taken, when the first lease ends; else when its oldest free
# delivery is due, which a pause may put off.
_RESCHEDULE: Final = f"""
    UPDATE webhooks_endpoint endpoint
       SET due_at = CASE
            WHEN held.count >= {_PLACES} THEN held.until
            WHEN endpoint.paused_until > %(now)s
            THEN LEAST(held.until,
                       GREATEST(free.due_at, LEAST(endpoint.paused_until, free.due_at + %(longest_pause)s)))
            ELSE LEAST(held.until, free.due_at)
           END
      FROM unnest(%(endpoints)s::bigint[]) AS looked (id)
     CROSS JOIN LATERAL (
        SELECT count(*) AS count, min(leased_until) AS until FROM webhooks_delivery
         WHERE endpoint_id = looked.id AND leased_until > %(now)s
     ) held
     CROSS JOIN LATERAL (
        SELECT min(due_at) AS due_at FROM webhooks_delivery
         WHERE endpoint_id = looked.id AND due_at IS NOT NULL AND (leased_until IS NULL OR leased_until <= %(now)s)
     ) free
     WHERE endpoint.id = looked.id AND endpoint.id = ANY(%(endpoints)s)
"""  # noqa: S608 - made of constants only

Held = Mapping[tuple[int, int], int]
"""How many deliveries the caller has in work, by organization and standing of their endpoint."""


def claim(
    limit: int, *, lease: dt.timedelta, rooms: Mapping[int, int], halves: Mapping[int, int], held: Held
) -> list[Delivery]:
    """Lease due deliveries to the caller, oldest first; each has the `standing` of its endpoint, and no body.

    Of each standing there are at most `rooms`, and never more of one organization than `halves`, those `held` included.
    """
    now = clock.now()
    keys = {organization_id * 4 + standing: count for (organization_id, standing), count in held.items()}
    standings = sorted(rooms)
    values: dict[str, Any] = {
        "now": now,
        "standings": standings,
        "rooms": [rooms[standing] for standing in standings],
        "halves": [halves[standing] for standing in standings],
        "keys": list(keys),
        "counts": list(keys.values()),
        "full": [key for key, count in keys.items() if count >= halves[key % 4]],
        "spare": SPARE,
        "longest_pause": LONGEST_PAUSE,
        "limit": limit,
        "token": uuid.uuid4(),
        "until": now + lease,
    }
    # Three statements, each with a look of its own: once the endpoints are locked, all their deliveries can be seen.
    with transaction.atomic(), connection.cursor() as cursor:
        values["endpoints"] = _taken(cursor, values, held)
        if not values["endpoints"]:
            return []
        rows = list(Delivery.objects.raw(_LEASE, values))
        cursor.execute(_RESCHEDULE, values)
    return sorted(rows, key=lambda row: (row.due_at, row.pk))


def _taken(cursor: CursorWrapper, values: Mapping[str, Any], held: Held) -> list[int]:
    """Lock due endpoints, oldest first; where one organization's fill all that was looked at, look past them too."""
    counts = Counter({organization_id * 4 + standing: count for (organization_id, standing), count in held.items()})
    room = dict(zip(values["standings"], values["rooms"], strict=True))
    half = dict(zip(values["standings"], values["halves"], strict=True))
    found: list[int] = []
    full = set(values["full"])
    for _ in range(GREEDY):
        cursor.execute(_TAKE, {**values, "full": list(full)})
        rows = cursor.fetchall()
        found += [endpoint_id for endpoint_id, _, _ in rows]
        looked_at = Counter(standing for _, _, standing in rows)
        counts.update(key for _, key, _ in rows)
        greedy = {key for _, key, standing in rows if looked_at[standing] >= room[standing] + SPARE}
        greedy = {key for key in greedy if counts[key] >= half[key % 4]}
        if not greedy:
            break
        full |= greedy
    return found


class Desk:
    """Claims for one lane of so many threads.

    Endpoints that fail again and again have a third of the threads at most, and so have those that are new or slow: the
    others, whatever those do, always find a third free. After `patience` seconds only good ones are served, so that
    the lane can come to an end without waiting for any that hangs.
    """

    def __init__(self, claim: Callable[..., list[Delivery]], *, threads: int, patience: float = 60.0) -> None:
        self._claim = claim
        self._most = {
            Standing.GOOD.value: threads,
            Standing.UNSURE.value: threads // 3,
            Standing.FAILING.value: threads // 3,
        }
        self._closes_at = time.monotonic() + patience
        self._held: Counter[tuple[int, int]] = Counter()
        self._lock = threading.Lock()

    def claim(self, limit: int) -> list[Delivery]:
        """Lease up to `limit` deliveries, as far as the shares allow."""
        with self._lock:
            held = +self._held
        is_closing = time.monotonic() > self._closes_at
        rooms = {}
        for standing, most in self._most.items():
            taken = sum(count for (_, of), count in held.items() if of == standing)
            is_served = standing == Standing.GOOD or not is_closing
            rooms[standing] = max(0, min(limit, most - taken)) if is_served else 0
        rows = self._claim(limit, rooms=rooms, halves={of: most // 2 for of, most in self._most.items()}, held=held)
        with self._lock:
            self._held.update(map(_key, rows))
        return rows

    def served(self, work: Callable[[Delivery], None]) -> Callable[[Delivery], None]:
        """Return `work` so that a delivery's place is given back afterwards."""

        def work_and_leave(row: Delivery) -> None:
            try:
                work(row)
            finally:
                with self._lock:
                    self._held[_key(row)] -= 1

        return work_and_leave


def _key(row: Delivery) -> tuple[int, int]:
    return row.organization_id, row.standing  # type: ignore[attr-defined] # what a claim adds to the row
