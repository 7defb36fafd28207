"""How gunicorn serves the web; every number can be set by the environment."""

import os
import tempfile
from typing import Any

_bind = os.environ.get("BIND", "127.0.0.1")

bind = f"{f'[{_bind}]' if ':' in _bind else _bind}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "seedancee2.webworker.Worker"
threads = int(os.environ.get("WEB_THREADS", "8"))
preload_app = False  # each process opens its own database pool
graceful_timeout = 20
timeout = 60
keepalive = 75  # longer than the idle timeout of the usual load balancers, so that we are not the one who hangs up
accesslog = None  # the application writes one line for each request
# Whose X-Forwarded-Proto is believed: nobody's, but that of a proxy named here.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
# Each process counts for itself; /metrics adds them up through files in this folder.
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))


def child_exit(server: Any, worker: Any) -> None:
    """Forget the gauges of a process that is gone."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call] # the package has no types there


# A customer hears of a database that does not answer within three seconds.
os.environ.setdefault("DATABASE_PATIENCE_SECONDS", "2.5")

control_socket_disable = True  # it would leave a socket in the home of whoever runs us
