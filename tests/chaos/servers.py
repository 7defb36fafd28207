"""PostgreSQL and Valkey for a system that is going to be hurt, started again whenever they die.

`python -m tests.chaos.servers FOLDER` keeps them in a folder and writes their addresses to `servers.json` there.
"""

import sys
from pathlib import Path

from seedancee2.local import postgres, state, valkey
from seedancee2.local.supervisor import Stopping, Supervisor

FILE = "servers.json"


def main() -> None:
    """Run until SIGTERM."""
    folder = Path(sys.argv[1])
    addresses: dict[str, object] = {}
    try:
        with Supervisor(_say) as programs:
            # Durable, both: what a server confirmed must be there after a kill.
            servers = {"postgres": postgres.prepare(folder / "postgres"), "valkey": valkey.prepare(folder / "valkey")}
            for name, server in servers.items():
                programs.start(server.program)
                assert programs.wait_until(server.is_ready, seconds=60), server.last_words()
                addresses[name] = server.url
            state.write_json(folder / FILE, addresses)
            while True:
                programs.wait(60)
    except Stopping:
        return


def _say(name: str, line: str) -> None:
    sys.stdout.write(f"{name}: {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
