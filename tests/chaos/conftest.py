"""One system for all tests here; they stay on one worker, one after the other."""

from collections.abc import Iterator

import pytest

from tests.chaos.run import seed_of_run
from tests.chaos.system import HurtSystem

PROVIDER_RATE = 0.2


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run; CHAOS_SEED repeats one."""
    return seed_of_run()


@pytest.fixture(scope="package")
def hurt_system(seed: int) -> Iterator[HurtSystem]:
    """The system, with an unreliable provider, in haste; ended after these tests: it takes a tenth of a core idle."""
    with HurtSystem(
        CHAOS_SEED=str(seed),
        CHAOS_PROVIDER_RATE=str(PROVIDER_RATE),
        CHAOS_HASTE="1",
        TASK_DEADLINE_SECONDS="300",
    ) as system:
        yield system


@pytest.fixture
def system(hurt_system: HurtSystem) -> Iterator[HurtSystem]:
    """The system in good health, and healed afterwards."""
    hurt_system.heal()
    hurt_system.await_programs()
    yield hurt_system
    hurt_system.heal()
