"""A provider dies in the middle of the work: what becomes of the tasks? Run: python -m bench.failover [TASKS].

The whole system of the Procfile, asked over HTTP, with emulated Ark and Kie of equal priority, each a process of its
own. Once half of the TASKS (200 unless told) are accepted, Ark is killed for good with all it knew. What it had taken
moves on by the channel's policy: `retry` after GRACE seconds of silence. Emulators write each submission to a file.
"""

import datetime as dt
import http.client
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import system
from bench.system import Provider, System

GRACE = 20  # seconds
RUNNING = 8.0  # seconds that a provider works on a task
SECONDS = 4  # of each video
PAUSE = 0.15  # seconds between two creations
PATIENCE = 900.0  # seconds after which the run is given up
PROVIDERS = ("ark", "kie")


def main() -> None:
    """Run it once and print what came of it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with system.system(RATE_LIMIT_CREATES="100000", RATE_LIMIT_REQUESTS="1000000") as made:
        books = {name: made.folder / f"{name}.submissions" for name in PROVIDERS}
        providers = {
            name: Provider(name, running=RUNNING, fill=partial(_keep_books, path=books[name])) for name in PROVIDERS
        }
        key = _prepare(providers, credits=count * 100)
        made.start("web", "worker", "poll", "deliver", "media", "beat")
        _await_readiness(made)
        began = time.time()
        accepted = []
        for number in range(count):
            accepted.append(_create(made, key, number))
            time.sleep(PAUSE)
            if number == count // 2:
                providers["ark"].kill()
                killed_at = time.time()
        try:
            ended = _await_ends(made, key, accepted)
        except TimeoutError:
            print(made.last_words())
            raise
        _print(began, killed_at, ended, {name: path.read_text().splitlines() for name, path in books.items()})


def _keep_books(emulator: Any, *, path: Path) -> None:
    """Write the id of each submission to a file at once, so that it outlives the process."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    record = emulator.record

    def record_and_write(submission: Any) -> None:
        record(submission)
        os.write(descriptor, f"{submission.task_id}\n".encode())

    emulator.record = record_and_write


def _prepare(providers: dict[str, Provider], *, credits: int) -> str:
    """Make the channels, with routes of equal priority, and a customer; return the customer's key."""
    from accounts.models import ApiKey
    from providers import presets
    from providers.models import Channel
    from seedancee2.console import provisioning

    for name, provider in providers.items():
        preset = presets.emulated(name, origin=provider.origin)
        channel = presets.install(name=name, preset=preset, credential=provider.key, is_active=True)
        Channel.objects.filter(pk=channel.pk).update(
            output_hosts=["127.0.0.1"], unknown_policy=Channel.UnknownPolicy.RETRY, unknown_grace_seconds=GRACE
        )
    issued = provisioning.issue_key(organization_name="bench", name="bench", mode=ApiKey.Mode.LIVE, credits=credits)
    return issued.secret


# --- As a customer. ---


def _ask(made: System, method: str, path: str, *, key: str = "", body: Any = None) -> tuple[int, Any]:
    base = urlsplit(made.values["PUBLIC_BASE_URL"])
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read() or b"null")
    finally:
        connection.close()


def _await_readiness(made: System) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if _ask(made, "GET", "/readyz")[0] == 200:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.5)
    raise SystemExit("The system does not come up:\n" + made.last_words())


def _create(made: System, key: str, number: int) -> str:
    given = {"prompt": "waves", "duration": SECONDS, "resolution": "480p", "aspect_ratio": "16:9"}
    body = {"model": "mini", "input": given, "metadata": {"number": number}}
    status, reply = _ask(made, "POST", "/v1/videos/generations", key=key, body=body)
    if status not in (200, 201, 202):
        raise SystemExit(f"A task was not accepted: {status} {reply}")
    public_id: str = reply["data"]["id"]
    return public_id


def _await_ends(made: System, key: str, public_ids: Sequence[str]) -> dict[str, Any]:
    ended: dict[str, Any] = {}
    end = time.monotonic() + PATIENCE
    while len(ended) < len(public_ids):
        if time.monotonic() > end:
            raise TimeoutError(f"{len(public_ids) - len(ended)} tasks are still open")
        time.sleep(2)
        for public_id in public_ids:
            if public_id not in ended:
                task = _ask(made, "GET", f"/v1/videos/generations/{public_id}", key=key)[1]["data"]
                if task["status"] in ("completed", "failed"):
                    ended[public_id] = task
    return ended


# --- What came of it. ---


def _print(began: float, killed_at: float, ended: dict[str, Any], books: dict[str, list[str]]) -> None:
    from django.db.models import Sum

    from billing.models import LedgerEntry, Reservation
    from generations import reconciliation
    from providers.models import UpstreamJob

    price = next(iter(ended.values()))["credits_charged"]
    charges = LedgerEntry.objects.filter(kind="capture")
    charged = -(charges.aggregate(sum=Sum("reserved_change"))["sum"] or 0)
    found = reconciliation.discrepancies()
    took = time.time() - began
    print(f"\n{len(ended)} tasks over HTTP, ark killed after {killed_at - began:.0f} s, all ended after {took:.0f} s")
    for status, number in sorted(Counter(task["status"] for task in ended.values()).items()):
        print(f"  {status:<52}{number:>8}")
    _row(
        "charges, and tasks that they are for", f"{charges.count()} / {charges.values('reference').distinct().count()}"
    )
    _row("credits charged, and tasks × price", f"{charged} / {len(ended) * price}")
    _row("reservations by state", dict(Counter(Reservation.objects.values_list("state", flat=True))))
    _row("discrepancies of R1 to R9", len(found))

    print(f"\n{'':<54}{'ark':>12}{'kie':>12}")
    rows = {name: list(UpstreamJob.objects.filter(channel__name=name)) for name in PROVIDERS}
    taken = {name: {job.upstream_id for job in jobs if job.upstream_id} for name, jobs in rows.items()}
    _row("attempts: rows of jobs sent there", *(len(jobs) for jobs in rows.values()))
    _row("  taken, by our rows", *(len(ids) for ids in taken.values()))
    _row("  submissions, by the emulator's own book", *(len(books[name]) for name in PROVIDERS))
    _row("  in its book and not in our rows", *(len(set(books[name]) - taken[name]) for name in PROVIDERS))
    for end in ("succeeded", "taken, and silent for the grace", "done, but its file was gone", "not taken"):
        _row(f"  {end}", *(sum(_end(job) == end for job in jobs) for jobs in rows.values()))

    given_up = [job for job in rows["ark"] if job.status == "failed" and job.upstream_id]
    killed = dt.datetime.fromtimestamp(killed_at, dt.UTC)
    waits = [
        (following.submitted_at - killed).total_seconds()
        for job in given_up
        for following in rows["kie"]
        if following.reference == job.reference and following.submitted_at
    ]
    if waits:
        _row(f"from its death to the next provider (grace {GRACE} s), p50", f"{statistics.median(waits):.1f} s")
        _row(f"from its death to the next provider (grace {GRACE} s), max", f"{max(waits):.1f} s")
    _row("taken by ark, and made again by kie", len(waits))
    if found:
        print(found)


def _end(job: Any) -> str:
    if job.status != "failed":
        return str(job.status)
    if not job.upstream_id:
        return "not taken"
    return "done, but its file was gone" if job.result else "taken, and silent for the grace"


def _row(title: str, *values: Any) -> None:
    print(f"{title:<54}" + "".join(f"{value!s:>12}" for value in values))


if __name__ == "__main__":
    main()
