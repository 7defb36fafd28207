"""Hosts of their own on one machine: network namespaces behind a bridge, each with a name and a share of a core.

Making them needs root and `ip`. Without, a host is a group of processes with a loopback address of its own, and has no
network to be cut off from. Without a cgroup to limit CPU time, hosts share the cores as they come.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from bench import system
from seedancee2.local import processes
from seedancee2.local.processes import Program
from seedancee2.local.state import ROOT

_NET = "10.213.77"
_PERIOD = 20_000  # microseconds
_CGROUPS = Path("/sys/fs/cgroup")


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """What connects hosts: they reach this machine's servers at `address`; `bridge` is empty without namespaces."""

    address: str
    bridge: str = ""

    def host(self, number: int) -> "Host":
        """Make a host with nothing on it yet."""
        name = f"{self.bridge or 'host'}-{number}"
        if not self.bridge:
            return Host(name, f"127.0.0.{1 + number}", is_apart=False, cgroup=_cgroup(name))
        address = f"{_NET}.{10 + number}"
        for line in (
            f"netns add {name}",
            f"link add {name} type veth peer name eth0 netns {name}",
            f"link set {name} master {self.bridge} up",
            f"-n {name} address add {address}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} link set lo up",
        ):
            _ip(line)
        return Host(name, address, is_apart=True, cgroup=_cgroup(name))


@dataclasses.dataclass(slots=True)
class Host:
    """Processes that live and die together."""

    name: str
    address: str
    is_apart: bool
    cgroup: Path | None
    running: list[tuple[subprocess.Popen[bytes], Program]] = dataclasses.field(default_factory=list)

    def start(self, *names: str, environment: Mapping[str, str], folder: Path) -> None:
        """Start processes of the Procfile by name."""
        for name in names:
            words = f"exec {system.procfile()[name]}"
            if self.is_apart:
                words = f"hostname {self.name} && exec ip netns exec {self.name} /bin/sh -c '{words}'"
            enter = f"echo $$ > {self.cgroup}/cgroup.procs && " if self.cgroup else ""
            program = Program(
                name=name,
                command=[*(["unshare", "--uts"] if self.is_apart else []), "/bin/sh", "-c", enter + words],
                folder=ROOT,
                environment={**environment, "BIND": self.address},
                log=folder / f"{self.name}-{name}.log",
            )
            self.running.append((processes.spawn(program), program))

    def limit(self, cores: float) -> bool:
        """Give its processes so much CPU time at most; tell whether this machine can."""
        if self.cgroup is None:
            return False
        if (self.cgroup / "cpu.max").exists():
            (self.cgroup / "cpu.max").write_text(f"{int(cores * _PERIOD)} {_PERIOD}")
        else:
            (self.cgroup / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (self.cgroup / "cpu.cfs_quota_us").write_text(str(int(cores * _PERIOD)))
        return True

    def die(self) -> None:
        """Lose the network, so that nobody is told, and then every process, by kill -9."""
        if self.is_apart:
            _ip(f"link set {self.name} down")
        started = [psutil.Process(process.pid) for process, _ in self.running]
        for one in (*started, *(child for top in started for child in top.children(recursive=True))):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        for process, _ in self.running:
            process.wait()
        self.running = []

    def remove(self) -> None:
        """Stop what runs, and the host with it."""
        while self.running:
            processes.stop(*self.running.pop())
        if self.is_apart:
            _ip(f"netns delete {self.name}", is_needed=False)
            _ip(f"link delete {self.name}", is_needed=False)
        end = time.monotonic() + 10
        while self.cgroup and self.cgroup.exists() and time.monotonic() < end:
            with contextlib.suppress(OSError):  # the last of its processes may be going just now
                self.cgroup.rmdir()
            time.sleep(0.05)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Give a network of namespaces where this machine allows one, else of loopback addresses."""
    bridge = f"s2b{os.getpid() % 100_000}"
    if os.geteuid() != 0 or not shutil.which("ip") or not _ip(f"link add {bridge} type bridge", is_needed=False):
        yield Network(system.LOOPBACK)
        return
    try:
        _ip(f"address add {_NET}.1/24 dev {bridge}")
        _ip(f"link set {bridge} up")
        yield Network(f"{_NET}.1", bridge)
    finally:
        _ip(f"link delete {bridge}", is_needed=False)


def _cgroup(name: str) -> Path | None:
    version_2 = (_CGROUPS / "cgroup.controllers").exists()
    folder = (_CGROUPS if version_2 else _CGROUPS / "cpu") / name
    with contextlib.suppress(OSError):
        folder.mkdir()
        if (folder / ("cpu.max" if version_2 else "cpu.cfs_quota_us")).exists():
            return folder
        folder.rmdir()
    return None


def _ip(line: str, *, is_needed: bool = True) -> bool:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    if is_needed and done.returncode:
        raise OSError(f"ip {line}: {done.stderr.strip()}")
    return done.returncode == 0
