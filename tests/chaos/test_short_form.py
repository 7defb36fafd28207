"""The short form of `make chaos`: the same harm and the same audit, in well under a minute."""

import pytest

from tests.chaos.run import table, trial
from tests.chaos.schedule import Measures

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("chaos")]


def test_nothing_is_lost_doubled_or_charged_wrongly(system, seed):
    print(f"CHAOS_SEED={seed}")
    findings = trial(
        system,
        seed=seed,
        count=24,
        measures=Measures(
            seconds=15,
            worker_kills=3,
            web_kills=2,
            flushes=2,
            stops=1,
            stop_seconds=4,
            valkey_kills=1,
            postgres_restarts=1,
            network_faults=1,
        ),
        say=print,
        settle_seconds=400,
        hook_failures=1,
    )
    print(table(findings))
    assert findings.wrong == []
