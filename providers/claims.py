"""Claims: due jobs are leased to a worker by moving `due_at` ahead and handing out a fencing token.

Every later write carries that token, so a worker that lost its lease changes nothing. The lane renews leases while
their worker lives; the write that ends a piece of work gives the lease up.
"""

import dataclasses
import datetime as dt
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from django.db import connection

from providers import adapters, routing
from providers.models import Channel, UpstreamJob
from seedancee2.lib import clock, lanes

Status = UpstreamJob.Status

LEASE = dt.timedelta(seconds=20)  # renewed every few seconds, so this bounds what a killed worker delays
BATCH = 10  # jobs asked for one after the other where a provider cannot tell of several at once
AHEAD = dt.timedelta(seconds=1)  # how early polls may be claimed that have to wait for their turn in a channel's rate

LANES = {"submit": (Status.QUEUED,), "poll": UpstreamJob.SENT, "settle": UpstreamJob.TERMINAL}

_LEASE_CHOSEN = """
    UPDATE providers_upstreamjob
       SET due_at = %(until)s, lease_token = gen_random_uuid(), claim_count = claim_count + 1
     WHERE id IN (SELECT id FROM chosen)
 RETURNING id
"""
# Chosen once: a subquery with LIMIT and SKIP LOCKED may be run again for each row, and then claims more than its limit.
_LEASED = "WITH chosen AS MATERIALIZED ({chosen})" + _LEASE_CHOSEN

# Relies on the index providers_job_due, read in its order for each status: for `status = ANY` PostgreSQL would sort all
# that is due at every claim. SKIP LOCKED keeps workers from waiting for each other.
_FINISHED = _LEASED.format(
    chosen="""
    SELECT due.id
      FROM unnest(%(statuses)s::text[]) AS lane (status)
     CROSS JOIN LATERAL (SELECT id, due_at FROM providers_upstreamjob job
                          WHERE job.status = lane.status AND job.due_at <= %(now)s
                          ORDER BY job.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) due
     ORDER BY due.due_at LIMIT %(limit)s
"""
)

_OVERDUE = _LEASED.format(
    chosen="""
    SELECT id FROM providers_upstreamjob WHERE status = 'queued' AND deadline_at <= %(now)s AND due_at <= %(now)s
     ORDER BY deadline_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
)

# Owners are stepped through by index, so that a great backlog of one costs a claim no more than a small one. The next
# turn is that of the owner with the fewest jobs under way.
_QUEUED = f"""
    WITH RECURSIVE served AS (
        SELECT * FROM unnest(%(traffics)s::text[], %(models)s::text[]) AS pair (traffic, model)
    ),
    owners AS (
        SELECT served.traffic, served.model, (
            SELECT job.owner FROM providers_upstreamjob job
             WHERE job.status = 'queued' AND job.due_at IS NOT NULL
               AND job.traffic = served.traffic AND job.model = served.model
             ORDER BY job.owner LIMIT 1
        ) AS owner FROM served
        UNION ALL
        SELECT owners.traffic, owners.model, (
            SELECT job.owner FROM providers_upstreamjob job
             WHERE job.status = 'queued' AND job.due_at IS NOT NULL
               AND job.traffic = owners.traffic AND job.model = owners.model AND job.owner > owners.owner
             ORDER BY job.owner LIMIT 1
        ) FROM owners WHERE owners.owner IS NOT NULL
    ),
    turns AS (
        SELECT one.owner, (
            SELECT count(*) FROM (
                SELECT FROM providers_upstreamjob sent
                 WHERE sent.owner = one.owner AND sent.status IN ('submitting', 'submitted', 'running') LIMIT 200
            ) counted
        ) AS under_way
        FROM (SELECT DISTINCT owner FROM owners WHERE owner IS NOT NULL) one
    ),
    due AS MATERIALIZED (
        SELECT job.id, job.due_at,
               turns.under_way + row_number() OVER (PARTITION BY owners.owner ORDER BY job.due_at) AS turn
          FROM owners JOIN turns USING (owner) CROSS JOIN LATERAL (
            SELECT one.id, one.due_at FROM providers_upstreamjob one
             WHERE one.status = 'queued' AND one.traffic = owners.traffic AND one.model = owners.model
               AND one.owner = owners.owner AND one.due_at <= %(now)s
             ORDER BY one.due_at LIMIT %(candidates)s
        ) job
    ),
    chosen AS MATERIALIZED (
        SELECT job.id FROM providers_upstreamjob job JOIN due USING (id)
         WHERE job.status = 'queued' AND job.due_at <= %(now)s
         ORDER BY due.turn, due.due_at LIMIT %(limit)s FOR UPDATE OF job SKIP LOCKED
    ),
    leased AS (
        {_LEASE_CHOSEN}
    )
    SELECT id FROM leased JOIN due USING (id) ORDER BY due.turn, due.due_at
"""  # noqa: S608 - made of constants only

# Relies on the index providers_job_poll.
_DUE_CHANNELS = """
    SELECT channel.id FROM providers_channel channel
     WHERE NOT channel.id = ANY(%(busy)s) AND EXISTS (
        SELECT FROM providers_upstreamjob job
         WHERE job.channel_id = channel.id AND job.status IN ('submitting', 'submitted', 'running')
           AND job.due_at <= %(now)s
     ) AND NOT EXISTS (
        SELECT FROM providers_meter meter
         WHERE meter.channel_id = channel.id AND meter.kind = 'poll' AND meter.next_at > %(latest)s
     )
"""
# One statement, so that no two workers get the same turns.
_TURNS = """
    INSERT INTO providers_meter AS meter (channel_id, kind, next_at)
    VALUES (%(channel)s, 'poll', %(now)s + make_interval(secs => %(seconds)s))
        ON CONFLICT (channel_id, kind) DO UPDATE
       SET next_at = greatest(meter.next_at, %(now)s) + make_interval(secs => %(seconds)s)
 RETURNING next_at - make_interval(secs => %(seconds)s)
"""
_SENT_OF_CHANNEL = _LEASED.format(
    chosen="""
    SELECT id FROM providers_upstreamjob
     WHERE channel_id = %(channel)s AND status IN ('submitting', 'submitted', 'running') AND due_at <= %(now)s
     ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
)


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Claimed jobs of one channel and credential that are asked for together; or one whose submission was lost.

    Where the channel has a rate, `turns_at` is when the first call for them may go out; the next ones follow evenly.
    """

    jobs: tuple[UpstreamJob, ...]
    turns_at: dt.datetime | None = None

    @property
    def channel(self) -> Channel:
        """Return the channel of all of them."""
        channel = self.jobs[0].channel
        assert channel is not None, f"{self.jobs[0]} was sent without a channel"
        return channel

    def __str__(self) -> str:
        return f"{len(self.jobs)} jobs of {self.channel}"


def claim_queued(limit: int) -> list[UpstreamJob]:
    """Lease jobs that some route has room for, in fair turns between their owners, and those past their deadline."""
    overdue = _claim(_OVERDUE, limit)
    served = sorted(routing.servable()) if len(overdue) < limit else []
    if not served:
        return overdue
    free = routing.free_places()
    # No more than can be sent: who was claimed in vain would lose its turn to others.
    left = limit - len(overdue) if free is None else min(limit - len(overdue), free)
    return overdue + _claim(
        _QUEUED,
        left,
        traffics=[traffic for traffic, _ in served],
        models=[model for _, model in served],
        # More than asked for, since other workers may be locking some of them at this moment.
        candidates=left + 32,
    )


def claim_polls(limit: int, *, busy: Collection[int] = ()) -> list[Batch]:
    """Lease up to `limit` batches of sent jobs that are due, of channels that are not `busy` (by id).

    Each channel gives at most one batch, so that none can take all the workers there are.
    """
    with connection.cursor() as cursor:
        now = clock.now()
        cursor.execute(_DUE_CHANNELS, {"busy": list(busy), "now": now, "latest": now + AHEAD})
        due = [row[0] for row in cursor.fetchall()]
    batches: list[Batch] = []
    for channel in Channel.objects.filter(pk__in=due).order_by("?") if due else ():
        if len(batches) >= limit:
            break
        bulk_limit = adapters.find(channel.adapter).bulk_limit
        # Of a slow rate no more than a second's worth, for the rest would only wait in this worker's hands.
        size = max(bulk_limit, min(BATCH, channel.max_polls_per_second or BATCH))
        for batch in _batches(_claim(_SENT_OF_CHANNEL, size, channel=channel.pk)):
            batches.append(dataclasses.replace(batch, turns_at=_turns(channel, -(-len(batch.jobs) // bulk_limit))))
    return batches


def _turns(channel: Channel, count: int) -> dt.datetime | None:
    """Take the next turns for `count` calls in a channel's rate; None where it has none."""
    if not channel.max_polls_per_second:
        return None
    seconds = count / channel.max_polls_per_second
    with connection.cursor() as cursor:
        cursor.execute(_TURNS, {"channel": channel.pk, "now": clock.now(), "seconds": seconds})
        turns_at: dt.datetime = cursor.fetchone()[0]
        return turns_at


class Desk:
    """Claims for one lane, so that no channel, however slow, has more than a third of its threads.

    After `patience` seconds nothing more is claimed of channels that are slow, so that the lane comes to an end while
    the others are still served.
    """

    def __init__(self, *, threads: int, patience: float = 30.0) -> None:
        self.most = threads // 3
        self._closes_at = time.monotonic() + patience
        self._begun: defaultdict[int, dict[Batch, float]] = defaultdict(dict)
        self._lock = threading.Lock()

    def claim(self, limit: int) -> list[Batch]:
        """Lease up to `limit` batches, a round of all channels at a time, none of one that has its share already."""
        claimed: list[Batch] = []
        while len(claimed) < limit:
            batches = claim_polls(limit - len(claimed), busy=self._busy())
            if not batches:
                break
            with self._lock:
                for batch in batches:
                    self._begun[batch.channel.pk][batch] = time.monotonic()
            claimed += batches
        return claimed

    def served(self, work: Callable[[Batch], None]) -> Callable[[Batch], None]:
        """Return `work` so that a batch's share is given back afterwards."""

        def work_and_leave(batch: Batch) -> None:
            try:
                work(batch)
            finally:
                with self._lock:
                    del self._begun[batch.channel.pk][batch]

        return work_and_leave

    def _busy(self) -> list[int]:
        now = time.monotonic()
        slow_since = now - lanes.SLOW if now > self._closes_at else float("-inf")
        with self._lock:
            return [
                channel_id
                for channel_id, begun in self._begun.items()
                if len(begun) >= self.most or min(begun.values(), default=now) < slow_since
            ]


def claim_finished(limit: int) -> list[UpstreamJob]:
    """Lease finished jobs that are not settled yet, the oldest first."""
    return _claim(_FINISHED, limit, statuses=[status.value for status in LANES["settle"]])


def renew(claimed: Iterable[UpstreamJob | Batch]) -> None:
    """Prolong the leases of jobs that are still being worked on; one given up or lost meanwhile is left alone."""
    jobs = [job for one in claimed for job in (one.jobs if isinstance(one, Batch) else (one,))]
    tokens = {job.pk: job.lease_token for job in jobs if job.lease_token}
    mine = UpstreamJob.objects.filter(pk__in=list(tokens), lease_token__in=list(tokens.values()))
    mine.update(due_at=clock.now() + LEASE)


def _claim(statement: str, limit: int, **values: Any) -> list[UpstreamJob]:
    now = clock.now()
    with connection.cursor() as cursor:
        cursor.execute(statement, {"now": now, "until": now + LEASE, "limit": limit, **values})
        ids = [row[0] for row in cursor.fetchall()]
    rows = UpstreamJob.objects.select_related("channel", "credential").in_bulk(ids) if ids else {}
    return [rows[job_id] for job_id in ids]


def _batches(claimed: Sequence[UpstreamJob]) -> list[Batch]:
    lost = [job for job in claimed if job.status == Status.SUBMITTING]
    told = sorted((job for job in claimed if job.status != Status.SUBMITTING), key=lambda job: job.credential_id or 0)
    # Looks for lost jobs are slow: those of a channel share one thread.
    together = [Batch(tuple(group)) for _, group in groupby(told, key=lambda job: job.credential_id)]
    return [*together, Batch(tuple(lost))] if lost else together
