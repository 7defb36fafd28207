"""From created to completed: how many tasks a second, and where the time goes. Run: python -m bench.pipeline [TASKS].

TASKS (200 unless told) are created at once; an emulated Ark in a process of its own is done with each at once. All of
the Procfile but the web runs, one process of each.
"""

import statistics
import sys
import time
from collections.abc import Sequence

from bench import load, system
from bench.system import Provider, System

PROMPT = "waves [emulate:queued=0] [emulate:running=0]"
PROCESSES = ("worker", "poll", "deliver", "media", "beat")
PATIENCE = 300.0  # seconds after which the run is given up

# Where a task is, from one time on its rows to the next.
_STAGES = """
    SELECT extract(epoch FROM j.submit_started_at - g.created_at),
           extract(epoch FROM j.submitted_at - j.submit_started_at),
           extract(epoch FROM j.finished_at - j.submitted_at),
           extract(epoch FROM g.finished_at - j.finished_at)
      FROM generations_generation g JOIN providers_upstreamjob j ON j.reference = g.public_id
     WHERE g.status = 'completed' ORDER BY g.created_at, g.public_id OFFSET 1
"""
_NAMES = ("waiting to be submitted", "being submitted", "until its end is noticed", "until its files are stored")


def main() -> None:
    """Measure and print one table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with system.system(LOG_LEVEL="WARNING") as made:
        try:
            measure(made, count)
        except BaseException:
            print(made.last_words())
            raise


def measure(made: System, count: int) -> None:
    """Run it once and print what came of it."""
    provider = Provider("ark", running=0.0)
    _route(provider)
    made.start(*PROCESSES)
    _create(1)
    _await_ends(1)  # everything is imported and connected now
    before = _cpu(made, provider)
    began = time.monotonic()
    _create(count)
    created = time.monotonic() - began
    _await_ends(1 + count)
    seconds = time.monotonic() - began
    used = {name: now - before[name] for name, now in _cpu(made, provider).items()}
    print(f"\n{count:,} tasks, created within {created:.1f} s, at a provider that is done at once{system.loaded()}")
    print(f"{'tasks a second':<44}{count / seconds:>9.1f}")
    stages = _stages()
    total = sum(sum(stage) for stage in stages)
    print(f"{'':<44}{'p50 s':>9}{'p99 s':>9}{'share':>9}")
    for name, stage in zip(_NAMES, stages, strict=True):
        print(f"{name:<44}{statistics.median(stage):>9.2f}{load.percentile(stage, 99):>9.2f}{sum(stage) / total:>9.0%}")
    print(f"{'CPU seconds a task':<44}{sum(used.values()) / count:>9.3f}")
    for name, took in used.items():
        print(f"  {name:<42}{took / count:>9.3f}")
    made.stop()
    provider.kill()


def _route(provider: Provider) -> None:
    from django.db import transaction

    from billing import ledger
    from providers import presets
    from seedancee2.console import provisioning

    organization = provisioning.ensure_organization(name="bench pipeline")
    with transaction.atomic():
        ledger.grant(
            organization_id=organization.pk, amount=10**9, reference="grt_b", actor="system:cli", reason="bench"
        )
    channel = presets.install(
        name="ark-bench",
        preset=presets.emulated("ark", origin=provider.origin),
        credential=provider.key,
        is_active=True,
    )
    channel.output_hosts = ["127.0.0.1"]
    channel.save()


def _create(count: int) -> None:
    from accounts.models import Organization
    from generations import lifecycle
    from generations.specs import JobSpec

    spec = JobSpec(model="mini", prompt=PROMPT, duration=4, resolution="480p")
    organization = Organization.objects.get(name="bench pipeline")
    for _ in range(count):
        lifecycle.create(organization_id=organization.pk, api_key_id=None, is_test=False, spec=spec)


def _await_ends(count: int) -> None:
    from generations.models import Generation

    deadline = time.monotonic() + PATIENCE
    while (done := Generation.objects.filter(status="completed").count()) < count:
        assert not Generation.objects.filter(status="failed").exists()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{done} of {count} tasks are completed")
        time.sleep(0.2)


def _stages() -> Sequence[list[float]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(_STAGES)
        return [[float(value) for value in column] for column in zip(*cursor.fetchall(), strict=True)]


def _cpu(made: System, provider: Provider) -> dict[str, float]:
    ours = {name: system._cpu_seconds(process.pid) for name, (process, _) in made.running.items()}
    return {**ours, "PostgreSQL": system.database_cpu_seconds(), "the emulator": provider.cpu_seconds()}


if __name__ == "__main__":
    main()
