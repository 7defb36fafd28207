"""What must be true when all is over: the customers, our rows, the provider's books and the receiver agree."""

import functools
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.chaos.customers import Customers, Wanted
from tests.chaos.system import HurtSystem, until
from tests.receivers import Receiver

MAX_FAILURES = 4  # of a provider's work, for one task; a submission that a provider did not take at all is not one


@dataclass
class Findings:
    """What is wrong, each in a sentence, and the figures of the run."""

    wrong: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    def expect(self, *, is_so: bool, what: str) -> None:
        """Note what is not as it must be."""
        if not is_so:
            self.wrong.append(what)


def open_work(system: HurtSystem) -> dict[str, int]:
    """Count what is not settled yet."""
    (row,) = system.rows(
        """
        SELECT (SELECT count(*) FROM generations_generation WHERE status IN ('pending', 'processing')) AS tasks,
               (SELECT count(*) FROM providers_upstreamjob WHERE due_at IS NOT NULL) AS jobs,
               (SELECT count(*) FROM webhooks_delivery WHERE due_at IS NOT NULL) AS deliveries
        """
    )
    return row


def check(
    system: HurtSystem, customers: Customers, wanted: list[Wanted], receiver: Receiver, *, available_before: int
) -> Findings:
    """Compare everything with everything."""
    findings = Findings()
    for complaint in customers.complaints:
        findings.wrong.append(complaint)
    tasks = _tasks(system, findings, customers, wanted)
    _money(system, findings, tasks, available_before)
    _provider(system, findings)
    _webhooks(system, findings, tasks, wanted, receiver)
    return findings


def _tasks(
    system: HurtSystem, findings: Findings, customers: Customers, wanted: list[Wanted]
) -> dict[str, dict[str, Any]]:
    found = {task["metadata"]["number"]: task for task in _listed(system) if "number" in task["metadata"]}
    known = {key: ids for key, ids in customers.tasks.items() if len(ids) == 1}
    findings.expect(is_so=len(known) == len(wanted), what=f"{len(known)} of {len(wanted)} keys made exactly one task")
    by_id = {task["id"]: task for task in found.values()}
    (rows,) = system.rows("SELECT count(*) AS n FROM generations_generation WHERE metadata->>'number' IS NOT NULL")
    findings.expect(is_so=rows["n"] == len(wanted), what=f"{rows['n']} tasks were made for {len(wanted)} keys")
    ends: Counter[str] = Counter()
    for one in wanted:
        (task_id,) = customers.tasks[one.key] or {""}
        task = by_id.get(task_id)
        if task is None:
            findings.wrong.append(f"{one.key}: the task {task_id} is not in the list")
            continue
        end = task["status"] if task["status"] != "failed" else task["error"]["code"]
        ends[end] += 1
        # Providers that refuse four times and deadlines may end any task; nothing else may surprise.
        allowed = {one.end, "generation_timeout", "generation_failed"}
        findings.expect(is_so=end in allowed, what=f"{task_id}: {one.prompt} ended as {end}")
    findings.figures["tasks"] = len(by_id)
    findings.figures["ends"] = dict(ends)
    findings.figures["expected ends"] = dict(Counter(one.end for one in wanted))
    findings.figures["answers to creates"] = dict(customers.answers)
    findings.figures["slowest create, s"] = round(customers.slowest, 1)
    return by_id


def _listed(system: HurtSystem) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = []
    url = f"{system.url}/videos/generations?limit=100"
    while url:
        reply = until(functools.partial(_answer, url, system.headers), 60, pause=1)
        tasks += reply.json()["data"]
        url = reply.links.get("next", {}).get("url", "")
    return tasks


def _answer(url: str, headers: dict[str, str]) -> requests.Response | None:
    # A connection that went half-open may have waited for just this request, so customers ask again after a 500.
    reply = requests.get(url, headers=headers, timeout=30)
    assert reply.status_code in (200, 500), reply.text
    return reply if reply.status_code == 200 else None


def _money(system: HurtSystem, findings: Findings, tasks: dict[str, dict[str, Any]], available_before: int) -> None:
    told = system.local.manage("reconcile_ledger", "--json")
    discrepancies = json.loads(told.splitlines()[-1])["discrepancies"]
    findings.wrong += [f"reconcile_ledger: {item}" for item in discrepancies]
    findings.figures["discrepancies"] = len(discrepancies)
    charged = sum(task["credits_charged"] for task in tasks.values())
    balance = system.balance()
    findings.figures["credits charged"] = charged
    findings.expect(
        is_so=balance == {"available": available_before - charged, "held": 0},
        what=f"the balance is {balance}; {available_before} less {charged} charged was expected",
    )


def _provider(system: HurtSystem, findings: Findings) -> None:
    (counts,) = system.rows(
        """
        SELECT count(*) AS jobs, count(*) FILTER (WHERE number > 1) AS retries,
               count(*) FILTER (WHERE callback_token_digest IS NOT NULL) AS submitted,
               count(*) FILTER (WHERE upstream_id <> '') AS accepted,
               (SELECT count(*) FROM providers_sandboxrun) AS runs
          FROM providers_upstreamjob
        """
    )
    strangers = system.rows(
        """
        SELECT r.run_id, j.reference, j.number, j.status, j.upstream_id, j.error_detail
          FROM providers_sandboxrun r
          LEFT JOIN providers_upstreamjob j USING (callback_token_digest)
         WHERE j.id IS NULL OR j.upstream_id <> r.run_id
        """
    )
    findings.wrong += [f"the provider runs what no job of ours stands for: {row}" for row in strangers]
    findings.expect(
        is_so=counts["runs"] == counts["accepted"],
        what=f"the provider counts {counts['runs']} submissions, our rows {counts['accepted']}",
    )
    twice = system.rows(
        """
        SELECT j.reference, j.number, count(*) FROM providers_upstreamcall c
          JOIN providers_upstreamjob j ON j.id = c.job_id WHERE c.kind = 'submit'
         GROUP BY 1, 2 HAVING count(*) > 1
        """
    )
    findings.wrong += [f"submitted twice: {row}" for row in twice]
    paid = system.rows(
        """
        SELECT j.reference, count(*) FROM providers_upstreamjob j WHERE j.status = 'succeeded'
         GROUP BY 1 HAVING count(*) > 1
        """
    )
    findings.wrong += [f"two videos were made for one task: {row}" for row in paid]
    tried = system.rows(
        """
        SELECT reference, count(*), array_agg(error_class ORDER BY number) AS errors FROM providers_upstreamjob
         WHERE error_class NOT IN ('capacity', 'our_account') GROUP BY 1 HAVING count(*) > %s
        """,
        [MAX_FAILURES],
    )
    findings.wrong += [f"tried too often: {row}" for row in tried]
    (recovered,) = system.rows(
        """
        SELECT count(DISTINCT c.job_id) AS n FROM providers_upstreamcall c
          JOIN providers_upstreamjob j ON j.id = c.job_id WHERE c.kind = 'recover' AND j.upstream_id <> ''
        """
    )
    findings.figures |= {
        "jobs": counts["jobs"],
        "of these retries": counts["retries"],
        "submissions at the provider": counts["runs"],
        "recovered submissions": recovered["n"],
    }


def _webhooks(
    system: HurtSystem,
    findings: Findings,
    tasks: dict[str, dict[str, Any]],
    wanted: list[Wanted],
    receiver: Receiver,
) -> None:
    bodies: dict[str, set[bytes]] = defaultdict(set)
    of_path: dict[str, set[str]] = defaultdict(set)
    attempts: Counter[tuple[str, str]] = Counter()
    for request in list(receiver.requests):
        delivery = request.headers["x-seedancee2-delivery"]
        bodies[delivery].add(request.body)
        of_path[request.path].add(delivery)
        attempts[delivery, request.headers["x-seedancee2-attempt"]] += 1
    findings.wrong += [f"{delivery} came with several bodies" for delivery, seen in bodies.items() if len(seen) > 1]
    expected = {one.callback for one in wanted if one.callback}
    findings.wrong += [f"no webhook came to {path}" for path in sorted(expected - set(of_path))]
    for path, deliveries in of_path.items():
        findings.expect(is_so=len(deliveries) == 1, what=f"{len(deliveries)} deliveries came to {path}")
        for body in bodies[next(iter(deliveries))]:
            told = json.loads(body)["data"]
            findings.expect(
                is_so=told == tasks.get(told["id"]), what=f"{told['id']}: the webhook is not what GET shows"
            )
    states = system.rows("SELECT state, count(*) AS n FROM webhooks_delivery GROUP BY 1")
    findings.expect(is_so={row["state"] for row in states} <= {"delivered"}, what=f"deliveries: {states}")
    findings.figures |= {
        "callbacks wanted": len(expected),
        "webhooks received": len(receiver.requests),
        "of these repeated by a crash": sum(count - 1 for count in attempts.values()),
    }
