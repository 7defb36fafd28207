"""The short form of `make chaos`: the same harm and the same audit, in about a minute."""

import pytest

from tests.chaos.run import table, trial
from tests.chaos.schedule import Measures

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]


def test_nothing_is_lost_doubled_or_charged_wrongly(system, seed):
    print(f"CHAOS_SEED={seed}")
    findings = trial(
        system,
        seed=seed,
        count=40,
        measures=Measures(
            seconds=25,
            worker_kills=4,
            web_kills=2,
            flushes=2,
            stops=1,
            stop_seconds=5,
            valkey_kills=1,
            postgres_restarts=1,
            network_faults=1,
        ),
        say=print,
        settle_seconds=150,
        hook_failures=1,
    )
    print(table(findings))
    assert findings.wrong == []
