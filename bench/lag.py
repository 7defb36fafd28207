"""How soon do we know that a provider is done? Run: python -m bench.lag [JOBS] [PROVIDER] [POLLS_PER_SECOND] [alone].

JOBS (10,000 unless told) are open at an emulated PROVIDER (ark unless told), a process of its own; each ends between
one and two minutes from then, and nobody calls back. Worker, poll and beat run as in the Procfile. At the start every
job is due, as after an outage. Then the same again beside a provider that accepts connections and never answers, with
1,000 jobs, unless the last word is `alone`.

The lag of a job is from its end at the provider to our row's `finished_at`; files are not part of it. The polls allowed
in a second are those of the provider's preset unless told; 0 for no limit. Requests are counted until the first job
ends. All the while a new task is created every two seconds: how soon is it sent?
"""

import dataclasses
import datetime as dt
import itertools
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from bench import system
from bench.system import Provider, System

SOONEST, LATEST = 60.0, 120.0  # seconds until a job ends
AGE = 60.0  # seconds that jobs have been open when the run begins
SILENT_JOBS = 1_000
PATIENCE = 900.0  # seconds after which a run is given up

PROMPT = "waves [emulate:running={:.3f}] [emulate:queued=0]"
MINI = {
    "ark": "dreamina-seedance-2-0-mini-260615",
    "fal": "bytedance/seedance-2.0/mini",
    "kie": "bytedance/seedance-2-mini",
    "replicate": "bytedance/seedance-2.0-mini",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What one run came to; times in seconds."""

    lags: Sequence[float]
    gaps: Sequence[float]
    per_second: Sequence[int]
    seconds: float
    waits: Sequence[float]
    cpu: dict[str, float]
    lost_count: int


def main() -> None:
    """Measure and print one table."""
    words = [word for word in sys.argv[1:] if word != "alone"]
    arguments = [*words, *("10000", "ark", "")[len(words) :]]
    count, name, rate = int(arguments[0]), arguments[1], arguments[2]
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; durable commits")
    with system.system(LOG_LEVEL="WARNING") as made:
        try:
            runs = [_rows(_run(made, name, count, rate, is_beside_silence=False))]
            if "alone" not in sys.argv:
                runs.append(_rows(_run(made, name, count, rate, is_beside_silence=True)))
        except TimeoutError:
            print(made.last_words())
            raise
    print(f"\n{count:,} open jobs at {name}, which end after {SOONEST:.0f} to {LATEST:.0f} s")
    heads = ("alone", "beside a dead provider")[: len(runs)]
    print(f"{'':<44}" + "".join(f"{head:>26}" for head in heads))
    for cells in zip(*runs, strict=True):
        print(f"{cells[0][0]:<44}" + "".join(f"{value:>26}" for _, value in cells))


def _rows(result: Result) -> list[tuple[str, str]]:
    lags, gaps = result.lags, result.gaps
    mean = sum(result.per_second) / len(result.per_second)
    return [
        ("detection lag p50", f"{_quantile(lags, 50):.1f} s"),
        ("detection lag p95", f"{_quantile(lags, 95):.1f} s"),
        ("detection lag p99", f"{_quantile(lags, 99):.1f} s"),
        ("detection lag, longest", f"{max(lags):.1f} s"),
        ("between two polls of a job, mean", f"{statistics.mean(gaps):.1f} s"),
        ("between two polls of a job, p95", f"{_quantile(gaps, 95):.1f} s"),
        ("lag p95 in mean poll intervals (bar: 2)", f"{_quantile(lags, 95) / statistics.mean(gaps):.2f}"),
        ("requests a second, mean", f"{mean:.1f}"),
        ("requests in the busiest second", f"{max(result.per_second)}"),
        ("busiest second, of the mean (bar: 2)", f"{max(result.per_second) / mean:.2f}"),
        ("from a new task to its submission, p50", f"{statistics.median(result.waits):.2f} s"),
        ("from a new task to its submission, longest", f"{max(result.waits):.2f} s"),
        *((f"CPU of {who}", f"{seconds:.1f} s of {result.seconds:.0f}") for who, seconds in result.cpu.items()),
        ("ends that were not noticed", str(result.lost_count)),
    ]


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


# --- One run. ---


def _run(made: System, name: str, count: int, rate: str, *, is_beside_silence: bool) -> Result:
    from providers.models import UpstreamJob
    from seedancee2.lib import clock

    made.start("worker", "poll", "beat")
    with system.black_hole() as dead:
        if is_beside_silence:
            other = "kie" if name != "kie" else "fal"
            channel = _channel(other, dead, "key", rate="")
            _write_jobs(channel, other, [(f"silent-{number}", time.time()) for number in range(SILENT_JOBS)])
        provider = Provider(name, fill=partial(_fill, name=name, count=count))
        began, cpu = time.monotonic(), _cpu(made, provider)
        channel = _channel(name, provider.origin, provider.key, rate)
        _write_jobs(channel, name, [(task_id, at) for task_id, at, _ in provider.filled])
        sent = UpstreamJob.objects.filter(channel=channel, status__in=UpstreamJob.SENT)
        while sent.exists():
            time.sleep(2)
            _create_task()
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"{sent.count()} jobs are still open")
        seconds = time.monotonic() - began
        used = {who: now - cpu[who] for who, now in _cpu(made, provider).items()}
        asked = provider.ask(_asked)
        provider.kill()
    made.stop()
    rows = UpstreamJob.objects.filter(channel=channel).values_list("upstream_id", "finished_at")
    ended = {upstream_id: finished_at.timestamp() for upstream_id, finished_at in rows if finished_at}
    times = UpstreamJob.objects.filter(traffic="test").values_list("created_at", "submit_started_at")
    waits = [((sent_at or clock.now()) - created_at).total_seconds() for created_at, sent_at in times]
    UpstreamJob.objects.all().delete()
    lags = [ended[task_id] - end for task_id, _, end in provider.filled if task_id in ended]
    gaps = [later - sooner for times in asked["by_task"].values() for sooner, later in itertools.pairwise(times)]
    per_second = _each_second([at for at in asked["all"] if at < min(end for _, _, end in provider.filled)])
    return Result(lags, gaps, per_second, seconds, waits, used, count - len(lags))


def _each_second(moments: Sequence[float]) -> list[int]:
    first = min(moments)
    counts = Counter(int(moment - first) for moment in moments)
    return [counts[second] for second in range(max(counts))]  # the last one is not whole


def _cpu(made: System, provider: Provider) -> dict[str, float]:
    return {
        "worker, poll and beat": made.cpu_seconds(),
        "the database": system.database_cpu_seconds(),
        "the emulator": provider.cpu_seconds(),
    }


# --- In the emulator's process. ---


def _fill(emulator: Any, *, name: str, count: int) -> list[tuple[str, float, float]]:
    """Let tasks be created, as if asked over the wire; return id, beginning and end of each."""
    emulator.asked = {"all": [], "by_task": {}}
    for _ in range(count):
        emulator.running = random.uniform(SOONEST, LATEST)
        response = emulator.handle(_create_request(name, emulator.key, PROMPT.format(emulator.running)))
        assert response.status < 300, response.body
    ends = []
    for task in emulator.submissions:
        running = float(task.prompt.partition("running=")[2].partition("]")[0])
        ends.append((task.task_id, task.at, task.at + running))
    answer = emulator.handle
    known = {task_id: emulator.asked["by_task"].setdefault(task_id, []) for task_id, _, _ in ends}

    def note_and_answer(request: Any) -> Any:
        now = time.time()
        emulator.asked["all"].append(now)
        words = [*request.path.split("/"), *itertools.chain.from_iterable(request.query.values())]
        for word in words:
            if word in known:
                known[word].append(now)
        return answer(request)

    emulator.handle = note_and_answer
    return ends


def _asked(emulator: Any) -> Any:
    return emulator.asked


def _create_request(name: str, key: str, prompt: str) -> Any:
    import json

    from providers.emulators.server import Request

    given = {"prompt": prompt, "duration": 4, "resolution": "480p", "aspect_ratio": "16:9"}
    path, body = {
        "ark": (
            "/api/v3/contents/generations/tasks",
            {"model": MINI["ark"], "content": [{"type": "text", "text": prompt}], "duration": 4, "resolution": "480p"},
        ),
        "fal": (f"/{MINI['fal']}/text-to-video", {**given, "duration": "4"}),
        "kie": ("/api/v1/jobs/createTask", {"model": MINI["kie"], "input": given}),
        "replicate": (f"/v1/models/{MINI['replicate']}/predictions", {"input": given}),
    }[name]
    scheme = "Key" if name == "fal" else "Bearer"
    headers = {"authorization": f"{scheme} {key}", "content-type": "application/json"}
    return Request("POST", path, {}, headers, json.dumps(body).encode())


# --- Our rows. ---


def _create_task() -> None:
    from accounts.models import Organization
    from generations import lifecycle
    from generations.specs import JobSpec

    spec = JobSpec(model="mini", prompt="waves", duration=4, resolution="480p")
    organization = Organization.objects.get(name="bench")
    lifecycle.create(organization_id=organization.pk, api_key_id=None, is_test=True, spec=spec)


def _channel(name: str, origin: str, key: str, rate: str) -> Any:
    from providers import presets
    from providers.models import Channel

    preset = presets.emulated(name, origin=origin)
    limits = {"ark": "byteplus"}.get(name, name)
    allowed = presets.PRESETS[limits].max_polls_per_second if rate == "" else int(rate) or None
    return presets.install(
        name=f"{name}-{Channel.objects.count()}",
        preset=dataclasses.replace(preset, max_polls_per_second=allowed),
        credential=key,
    )


def _write_jobs(channel: Any, name: str, tasks: Sequence[tuple[str, float]]) -> None:
    """Write tasks and jobs as they are once a provider has taken them."""
    from django.db import transaction

    from accounts.models import Organization
    from generations.models import Generation
    from generations.specs import JobSpec
    from providers import channels
    from providers.models import UpstreamJob
    from seedancee2.lib import clock, ids

    organization, _ = Organization.objects.get_or_create(name="bench")
    credential = channels.newest_credential(channel)
    spec = JobSpec(model="mini", prompt="waves", duration=4, resolution="480p")
    request, given = spec.job_request().as_json(), spec.input_json()
    now = clock.now()
    deadline_at = now + dt.timedelta(hours=1)
    generations = [
        Generation(
            public_id=ids.new("vid"),
            organization=organization,
            model="mini",
            input=given,
            rate=5,
            credits=20,
            created_at=now,
            deadline_at=deadline_at,
        )
        for _ in tasks
    ]
    rows = [
        UpstreamJob(
            owner=str(organization.pk),
            reference=generation.public_id,
            model="mini",
            traffic="live",
            request=request,
            status=UpstreamJob.Status.SUBMITTED,
            channel=channel,
            credential=credential,
            upstream_model=MINI[name],
            upstream_id=task_id,
            submitted_at=dt.datetime.fromtimestamp(at - AGE, dt.UTC),
            due_at=now,
            deadline_at=deadline_at,
        )
        for (task_id, at), generation in zip(tasks, generations, strict=True)
    ]
    with transaction.atomic():
        Generation.objects.bulk_create(generations, batch_size=1_000)
        UpstreamJob.objects.bulk_create(rows, batch_size=1_000)


if __name__ == "__main__":
    main()
