"""Clients of the ledger alone: `python -m tests.chaos.ledger_clients FOLDER SEED` forks eight, and others for the dead.

What a client was told to be committed it writes into its journal, one line at once, which a kill -9 leaves whole.
"""

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

CLIENTS: Final = 8
ORGANIZATIONS: Final = range(1, 6)
CEILING = 200  # credits above which nothing is granted, so that many operations are refused
ACTOR = "system:chaos"


def main() -> None:
    """Keep the clients going until SIGTERM."""
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    import django

    django.setup()
    from django.db import connections

    connections.settings["default"]["OPTIONS"].pop("pool", None)  # its threads would not survive the fork
    children: set[int] = set()

    def stop(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGKILL)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    for number in itertools.count():
        if len(children) == CLIENTS:
            pid, _ = os.waitpid(-1, 0)
            children.discard(pid)
        child = os.fork()
        if child == 0:
            _live(folder, f"{seed}-{number}")
        children.add(child)


def _live(folder: Path, name: str) -> NoReturn:
    from django.db import DatabaseError, connection

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client = Client(name, os.open(folder / f"journal-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    while True:
        try:
            client.act()
        except DatabaseError as error:  # the server went away, or only our backend: what was on its way is uncertain
            client.note("uncertain", type(error).__name__)
            connection.close()
            time.sleep(0.02)


class Client:
    """One client, who does something at a time, chosen by dice."""

    def __init__(self, name: str, journal: int) -> None:
        self._name = name
        self._journal = journal
        self._dice = random.Random(f"ledger/{name}")
        self._numbers = itertools.count()

    def act(self) -> None:
        """Do one transaction."""
        act = self._dice.choices(
            [self._life, self._hold, self._close, self._close_twice, self._refund, self._grant, self._repeat],
            [60, 12, 12, 3, 5, 6, 2],
        )[0]
        act(self._dice.choice(ORGANIZATIONS))

    def note(self, what: str, reference: str) -> None:
        """Write one line into the journal."""
        os.write(self._journal, f"{what} {reference}\n".encode())

    def _reference(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    def _life(self, organization: int) -> None:
        """Several holds in one transaction, most of them closed in it too."""
        from billing import ledger

        def work() -> list[tuple[str, str]]:
            done = []
            for _ in range(self._dice.randint(2, 8)):
                reference = self._reference()
                ledger.reserve(
                    organization_id=organization, amount=self._dice.randint(1, 6), reference=reference, actor=ACTOR
                )
                done.append(("reserve", reference))
                end = self._dice.choices(["capture", "release", ""], [20, 75, 5])[0]
                if end == "capture":
                    ledger.capture(reference=reference, actor=ACTOR)
                elif end == "release":
                    ledger.release(reference=reference, actor=ACTOR)
                if end:
                    done.append((end, reference))
            return done

        self._commit(work)

    def _hold(self, organization: int) -> None:
        from billing import ledger

        reference, amount = self._reference(), self._dice.randint(1, 40)

        def work() -> list[tuple[str, str]]:
            ledger.reserve(organization_id=organization, amount=amount, reference=reference, actor=ACTOR)
            return [("reserve", reference)]

        self._commit(work)

    def _close(self, organization: int) -> None:
        """Capture or release a hold of anybody; others try the same."""
        from billing import ledger

        reference = self._some("held", organization)
        if reference is None:
            return
        name = self._dice.choice(["capture", "release"])
        close = ledger.capture if name == "capture" else ledger.release

        def work() -> list[tuple[str, str]]:
            close(reference=reference, actor=ACTOR)
            return [(name, reference)]

        self._commit(work)

    def _close_twice(self, organization: int) -> None:
        """Close a hold and, in the same transaction, close it again: all of it must be undone."""
        from billing import ledger

        reference = self._some("held", organization)
        if reference is None:
            return

        def work() -> list[tuple[str, str]]:
            ledger.release(reference=reference, actor=ACTOR)
            ledger.capture(reference=reference, actor=ACTOR)
            return [("closed twice", reference)]

        self._commit(work)

    def _refund(self, organization: int) -> None:
        from billing import ledger

        reference = self._some("captured", organization)
        if reference is None:
            return
        amount = self._dice.randint(1, 4)

        def work() -> list[tuple[str, str]]:
            entry = ledger.refund(reference=reference, amount=amount, actor=ACTOR, reason="chaos")
            return [("refund", entry.reference)]

        self._commit(work)

    def _grant(self, organization: int) -> None:
        from billing import ledger

        available, _ = ledger.balance(organization_id=organization)
        if available > CEILING:
            return
        reference = f"grt_{self._reference()}"

        def work() -> list[tuple[str, str]]:
            ledger.grant(organization_id=organization, amount=150, reference=reference, actor=ACTOR, reason="chaos")
            return [("grant", reference)]

        self._commit(work)

    def _repeat(self, organization: int) -> None:
        """Grant twice by one reference, as somebody does who heard nothing of the first."""
        from billing import ledger

        reference = f"grt_{self._reference()}"

        def work() -> list[tuple[str, str]]:
            ledger.grant(organization_id=organization, amount=5, reference=reference, actor=ACTOR, reason="chaos")
            return [("grant", reference)]

        self._commit(work)
        self._commit(work)

    def _commit(self, work: Callable[[], list[tuple[str, str]]]) -> None:
        from django.db import transaction

        from billing import ledger
        from seedancee2.api.errors import InsufficientCredits

        try:
            with transaction.atomic():
                done = work()
        except (InsufficientCredits, ledger.ReservationClosed, ledger.RepeatedReference, ValueError) as error:
            self.note("refused", type(error).__name__)
            return
        os.write(self._journal, "".join(f"{what} {reference}\n" for what, reference in done).encode())

    def _some(self, state: str, organization: int) -> str | None:
        from django.db import connection

        sql = {
            "held": "SELECT reference FROM billing_reservation"
            " WHERE state = 'held' AND account_id = %(account)s LIMIT 20",
            # Of the newest only: the table grows.
            "captured": "SELECT reference FROM billing_ledgerentry WHERE account_id = %(account)s AND kind = 'capture'"
            " AND sequence > (SELECT sequence - 60 FROM billing_creditaccount WHERE organization_id = %(account)s)",
        }[state]
        with connection.cursor() as cursor:
            cursor.execute(sql, {"account": organization})
            rows = cursor.fetchall()
        return self._dice.choice(rows)[0] if rows else None


if __name__ == "__main__":
    main()
