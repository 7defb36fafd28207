"""The ledger against a model of it in plain Python: any order of movements, repeats and mistakes included."""

import copy
import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import time_machine
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test

from accounts.tests.factories import OrganizationFactory
from billing import adjustments, ledger, reconciliation
from billing.models import Adjustment
from seedancee2.api.errors import InsufficientCredits
from seedancee2.lib import clock

START = dt.datetime(2026, 6, 29, 10, tzinfo=dt.UTC)
LIMIT = 200  # what one person may adjust alone in a day
START_HOLDS = [f"start_{number}" for number in range(4)]
PEOPLE = ["user:ann", "user:bob", adjustments.CLI]

ORGANIZATIONS = st.sampled_from([0, 0, 1, 2])
AMOUNTS = st.integers(-2, 120)
SIGNED = st.integers(-150, 150)
NAMES = st.sampled_from([f"adj_{number}" for number in range(8)])
SELDOM = st.sampled_from([False, False, False, True])

# Everything that the database holds, in one look; of the entries only those that came since the last one.
EVERYTHING = """
    SELECT json_build_object(
        'accounts', (SELECT json_object_agg(organization_id, json_build_array(available, reserved, sequence))
                       FROM billing_creditaccount),
        'holds', (SELECT json_object_agg(reference, json_build_array(account_id, amount, state, refunded))
                    FROM billing_reservation),
        'adjustments', (SELECT json_object_agg(adjustment_id, json_build_array(account_id, amount, requested_by,
                               CASE WHEN moved_at IS NOT NULL THEN 'moved'
                                    WHEN declined_at IS NOT NULL THEN 'declined' ELSE 'waiting' END))
                          FROM billing_adjustment),
        'entries', (SELECT json_agg(json_build_array(account_id, sequence, kind, available_change, reserved_change,
                                                     available_after, reserved_after, reference) ORDER BY id)
                      FROM billing_ledgerentry WHERE id > %s),
        'last', (SELECT coalesce(max(id), 0) FROM billing_ledgerentry))::text
"""


class Undone(Exception):
    """What the caller did next failed, so that its whole transaction rolls back."""


@dataclasses.dataclass
class Hold:
    organization: int
    amount: int
    state: str = "held"
    refunded: int = 0

    def row(self) -> list[object]:
        return [self.organization, self.amount, self.state, self.refunded]


@dataclasses.dataclass
class Asked:
    organization: int
    amount: int
    requested_by: str
    state: str = "waiting"
    moved_alone_by: str = ""

    def row(self) -> list[object]:
        return [self.organization, self.amount, self.requested_by, self.state]


class Model:
    """The ledger as it should be: what each call raises, or how it changes the numbers."""

    def __init__(self) -> None:
        self.accounts: dict[int, list[int]] = {}  # available, reserved, sequence
        self.holds: dict[str, Hold] = {}
        self.adjustments: dict[str, Asked] = {}
        self.entries: list[list[int | str]] = []

    def copy(self) -> "Model":
        other = Model()
        other.accounts = {key: list(row) for key, row in self.accounts.items()}
        other.holds = {key: copy.copy(hold) for key, hold in self.holds.items()}
        other.adjustments = {key: copy.copy(asked) for key, asked in self.adjustments.items()}
        other.entries = list(self.entries)
        return other

    def grant(self, organization: int, amount: int, reference: str) -> type[Exception] | None:
        if amount <= 0:
            return ValueError
        if self._is_repeated("grant", reference):
            return ledger.RepeatedReference
        self._move(organization, "grant", amount, 0, reference)
        return None

    def adjust(self, organization: int, amount: int, reference: str, reason: str) -> type[Exception] | None:
        if amount == 0 or not reason.strip():
            return ValueError
        if self._available(organization) + amount < 0:
            return InsufficientCredits
        if self._is_repeated("adjust", reference):
            return ledger.RepeatedReference
        self._move(organization, "adjust", amount, 0, reference)
        return None

    def request(self, organization: int, amount: int, by: str, name: str) -> type[Exception] | None:
        if amount == 0:
            return ValueError
        if name in self.adjustments:
            asked = self.adjustments[name]
            return None if (asked.organization, asked.amount) == (organization, amount) else ValueError
        moved = sum(abs(other.amount) for other in self.adjustments.values() if other.moved_alone_by == by)
        is_alone = by == adjustments.CLI or moved + abs(amount) <= LIMIT
        if is_alone and self._available(organization) + amount < 0:
            return InsufficientCredits
        self.accounts.setdefault(organization, [0, 0, 0])
        self.adjustments[name] = Asked(organization, amount, by)
        if is_alone:
            self.adjustments[name].state, self.adjustments[name].moved_alone_by = "moved", by
            self._move(organization, "adjust", amount, 0, name)
        return None

    def approve(self, name: str, by: str) -> type[Exception] | None:
        asked = self.adjustments.get(name)
        if asked is None:
            return Adjustment.DoesNotExist
        if asked.state == "moved":
            return None
        if asked.state == "declined" or asked.requested_by == by:
            return adjustments.NotAllowed
        if self._available(asked.organization) + asked.amount < 0:
            return InsufficientCredits
        asked.state = "moved"
        self._move(asked.organization, "adjust", asked.amount, 0, name)
        return None

    def decline(self, name: str) -> type[Exception] | None:
        asked = self.adjustments.get(name)
        if asked is None:
            return Adjustment.DoesNotExist
        if asked.state == "moved":
            return adjustments.NotAllowed
        asked.state = "declined"
        return None

    def reserve(self, organization: int, amount: int, reference: str) -> type[Exception] | None:
        if organization not in self.accounts:
            return InsufficientCredits
        if reference in self.holds or amount <= 0:
            return IntegrityError
        if self._available(organization) < amount:
            return InsufficientCredits
        self.holds[reference] = Hold(organization, amount)
        self._move(organization, "reserve", -amount, amount, reference)
        return None

    def close(self, kind: str, reference: str) -> type[Exception] | None:
        hold = self.holds.get(reference)
        if hold is None or hold.state != "held":
            return ledger.ReservationClosed
        hold.state = f"{kind}d"
        self._move(hold.organization, kind, hold.amount if kind == "release" else 0, -hold.amount, reference)
        return None

    def refund(self, reference: str, amount: int) -> type[Exception] | None:
        hold = self.holds.get(reference)
        if hold is None or hold.state != "captured" or amount <= 0 or hold.refunded + amount > hold.amount:
            return ValueError
        hold.refunded += amount
        self._move(hold.organization, "refund", amount, 0, f"{reference}/{hold.refunded}")
        return None

    def _available(self, organization: int) -> int:
        return self.accounts.get(organization, [0])[0]

    def _is_repeated(self, kind: str, reference: str) -> bool:
        return any(entry[2] == kind and entry[7] == reference for entry in self.entries)

    def _move(self, organization: int, kind: str, available: int, reserved: int, reference: str) -> None:
        account = self.accounts.setdefault(organization, [0, 0, 0])
        account[0] += available
        account[1] += reserved
        account[2] += 1
        self.entries.append([organization, account[2], kind, available, reserved, account[0], account[1], reference])


class LedgerMachine(RuleBasedStateMachine):
    """Calls the ledger and the model alike; each example is a transaction that is rolled back at its end."""

    organizations: ClassVar[list[int]]  # made once for all examples, and so is how they begin:
    start: ClassVar[Model]
    start_at: ClassVar[dt.datetime]

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.model = self.start.copy()
        self.entry_count = len(self.model.entries)
        self.name_count = 0
        self.moments: list[tuple[dt.datetime, dict[int, tuple[int, int]]]] = []
        self.turned = time_machine.travel(self.start_at, tick=False)
        self.clock = self.turned.start()
        self.example = transaction.atomic()
        self.example.__enter__()
        with connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(max(id), 0) FROM billing_ledgerentry")
            (self.seen,) = cursor.fetchone()

    def prepare(self) -> None:
        """Some credits, four holds, one of them charged, and three adjustments that wait, one of them in vain."""
        # The third organization has no account until something opens one.
        self.grant(organization=0, amount=1_000, number=100)
        self.grant(organization=1, amount=200, number=101)
        for number, reference in enumerate(START_HOLDS):
            self._reserve(number % 2, 40, reference, False)
        self.capture(reference=START_HOLDS[0], is_undone=False)
        for number, amount in enumerate([250, -250, 260]):
            self.request(organization=0, amount=amount, by="user:ann", name=f"adj_{number}")
        self.decline(name="adj_2", by="user:bob")

    def keep(self) -> None:
        """Let all examples begin with what this one did."""
        LedgerMachine.start, LedgerMachine.start_at = self.model, clock.now()
        self.example.__exit__(None, None, None)
        self.turned.stop()

    @initialize(target=holds)
    def begin(self) -> Any:
        return multiple(*START_HOLDS)

    @rule(organization=ORGANIZATIONS, amount=AMOUNTS, number=st.integers(0, 40))
    def grant(self, organization: int, amount: int, number: int) -> None:
        reference = f"grt_{number}"
        organization = self.organizations[organization]
        self._both(
            lambda model: model.grant(organization, amount, reference),
            lambda: ledger.grant(
                organization_id=organization, amount=amount, reference=reference, actor="t", reason="bought"
            ),
        )

    @rule(organization=ORGANIZATIONS, amount=SIGNED, number=st.integers(0, 40), is_silent=SELDOM)
    def adjust(self, organization: int, amount: int, number: int, is_silent: bool) -> None:
        reference, reason = f"fix_{number}", " " if is_silent else "why"
        organization = self.organizations[organization]
        self._both(
            lambda model: model.adjust(organization, amount, reference, reason),
            lambda: ledger.adjust(
                organization_id=organization, amount=amount, reference=reference, actor="t", reason=reason
            ),
        )

    @rule(organization=ORGANIZATIONS, amount=SIGNED, by=st.sampled_from(PEOPLE), name=NAMES)
    def request(self, organization: int, amount: int, by: str, name: str) -> None:
        organization = self.organizations[organization]
        self._both(
            lambda model: model.request(organization, amount, by, name),
            lambda: adjustments.request(
                organization_id=organization, amount=amount, reason="why", requested_by=by, adjustment_id=name
            ),
        )

    @rule(name=NAMES, by=st.sampled_from(PEOPLE), is_own=st.booleans())
    def approve(self, name: str, by: str, is_own: bool) -> None:
        by = self.model.adjustments[name].requested_by if is_own and name in self.model.adjustments else by
        self._both(
            lambda model: model.approve(name, by), lambda: adjustments.approve(adjustment_id=name, approved_by=by)
        )

    @rule(name=NAMES, by=st.sampled_from(PEOPLE))
    def decline(self, name: str, by: str) -> None:
        self._both(lambda model: model.decline(name), lambda: adjustments.decline(adjustment_id=name, declined_by=by))

    @rule(target=holds, organization=ORGANIZATIONS, amount=AMOUNTS, is_undone=SELDOM)
    def reserve(self, organization: int, amount: int, is_undone: bool) -> Any:
        reference = self._new("vid")
        return reference if self._reserve(organization, amount, reference, is_undone) else multiple()

    @rule(organization=ORGANIZATIONS, amount=AMOUNTS, reference=holds)
    def reserve_again(self, organization: int, amount: int, reference: str) -> None:
        self._reserve(organization, amount, reference, False)

    @rule(reference=holds, is_undone=SELDOM)
    def capture(self, reference: str, is_undone: bool) -> None:
        self._both(
            lambda model: model.close("capture", reference),
            lambda: ledger.capture(reference=reference, actor="t"),
            is_undone=is_undone,
        )

    @rule(reference=holds, is_undone=SELDOM)
    def release(self, reference: str, is_undone: bool) -> None:
        self._both(
            lambda model: model.close("release", reference),
            lambda: ledger.release(reference=reference, actor="t"),
            is_undone=is_undone,
        )

    @rule(reference=holds, amount=AMOUNTS)
    def refund(self, reference: str, amount: int) -> None:
        self._both(
            lambda model: model.refund(reference, amount),
            lambda: ledger.refund(reference=reference, amount=amount, actor="t", reason="goodwill"),
        )

    def teardown(self) -> None:
        try:
            self._check_the_past()
            found = [str(item) for item in reconciliation.discrepancies()]
            assert not found, "; ".join(found)
        finally:
            transaction.set_rollback(True)
            self.example.__exit__(None, None, None)
            self.turned.stop()

    def _new(self, prefix: str) -> str:
        self.name_count += 1
        return f"{prefix}_{self.name_count}"

    def _reserve(self, organization: int, amount: int, reference: str, is_undone: bool) -> bool:
        organization = self.organizations[organization]
        return self._both(
            lambda model: model.reserve(organization, amount, reference),
            lambda: ledger.reserve(organization_id=organization, amount=amount, reference=reference, actor="t"),
            is_undone=is_undone,
        )

    def _both(
        self,
        expected: Callable[[Model], type[Exception] | None],
        call: Callable[[], object],
        *,
        is_undone: bool = False,
    ) -> bool:
        """Do the same to the model and to the ledger: outcome and rows must agree; tell whether it was done."""
        raised: type[Exception] | None = None
        try:
            with transaction.atomic():
                call()
                if is_undone:
                    raise Undone
        except Exception as error:  # noqa: BLE001 - which one it is, is what this compares
            raised = type(error)
        wanted = expected(self.model.copy() if is_undone else self.model)
        wanted = wanted or (Undone if is_undone else None)
        assert raised is wanted, f"raised {_name(raised)}, expected {_name(wanted)}"
        self._compare()
        self.moments.append((clock.now(), {key: (row[0], row[1]) for key, row in self.model.accounts.items()}))
        self.clock.shift(1)
        return raised is None

    def _compare(self) -> None:
        stored = self._stored()
        assert stored["accounts"] == {str(key): row for key, row in self.model.accounts.items()}
        assert stored["holds"] == {key: hold.row() for key, hold in self.model.holds.items()}
        assert stored["adjustments"] == {key: asked.row() for key, asked in self.model.adjustments.items()}
        assert stored["entries"] == self.model.entries[len(self.model.entries) - len(stored["entries"]) :]
        self.entry_count += len(stored["entries"])
        assert self.entry_count == len(self.model.entries)

    def _stored(self) -> dict[str, Any]:
        with connection.cursor() as cursor:
            cursor.execute(EVERYTHING, [self.seen])
            found = json.loads(cursor.fetchone()[0])
        self.seen = found["last"]
        return {name: value or ([] if name == "entries" else {}) for name, value in found.items()}

    def _check_the_past(self) -> None:
        for number, (moment, balances) in enumerate(self.moments[::10]):
            organization = self.organizations[number % 3]
            found = ledger.balance_at(organization_id=organization, moment=moment)
            assert found == balances.get(organization, (0, 0)), moment


def _name(kind: type[Exception] | None) -> str:
    return kind.__name__ if kind else "nothing"


@pytest.fixture
def organizations(settings) -> None:
    """Three organizations without accounts, and a limit for adjustments."""
    settings.ADJUSTMENT_LIMIT = LIMIT
    LedgerMachine.organizations = [OrganizationFactory.create().pk for _ in range(3)]
    LedgerMachine.start, LedgerMachine.start_at = Model(), START


@pytest.mark.django_db
@pytest.mark.parametrize("part", [1, 2])
def test_the_ledger_agrees_with_its_model(organizations, part):
    beginning = LedgerMachine()
    beginning.prepare()
    beginning.keep()
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=225, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
