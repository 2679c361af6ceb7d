"""A Ray cluster of several machines: a head that trains nothing and where the driver runs, and workers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.network import Machine, Network

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 300.0
PORT = 6379
_BIN = Path(sys.executable).parent
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Of the cluster's control service: a node that does not answer for a few seconds is lost. Ray's own is a minute."""


class Node:
    """A machine on which Ray runs."""

    def __init__(self, machine: Machine, process: subprocess.Popen[bytes]) -> None:
        self.machine, self.process = machine, process

    def kill(self) -> None:
        """All at once, as when its power goes."""
        self.machine.kill()
        self.process.wait()


class Cluster:
    """A head and `workers` nodes of `cpus` each, with Ray's token on. Used as a context manager."""

    def __init__(self, network: Network, traces: Path, workers: int = 2, cpus: int = 2, **environment: str) -> None:
        self._network, self._workers, self._cpus = network, workers, cpus
        self._stray: list[Node] = []
        self._scratch = Path(tempfile.mkdtemp(prefix="xf", dir="/tmp"))  # Ray's sockets need short names
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = kept | QUICK_TO_NOTICE | environment | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
            "RAY_worker_niceness": "0",
            "TUNE_LORA_CURVE_TRACE": str(traces),
        }  # fmt: skip

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def start(self) -> None:
        """A whole new cluster."""
        self.head = self._node("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
        self.workers: list[Node] = []
        for _ in range(self._workers):
            self.add_worker()
        self.wait_for_workers()

    def add_worker(self) -> Node:
        """One more node; it joins a little later."""
        self.workers.append(self._node(f"--address={self.head.machine.address}:{PORT}", f"--num-cpus={self._cpus}"))
        return self.workers[-1]

    def wait_for_workers(self) -> None:
        """Until all nodes are there."""
        wanted = len(self.workers) * self._cpus
        program = (
            "import ray, sys, time, logging\n"
            f"ray.init('{self.address}', log_to_driver=False, logging_level=logging.ERROR)\n"
            f"while ray.cluster_resources().get('CPU', 0) < {wanted}: time.sleep(0.1)\n"
        )
        words = self.head.machine.command(sys.executable, "-c", program)
        subprocess.run(words, env=self.environment, cwd=ROOT, timeout=DEADLINE_SECONDS, check=True, capture_output=True)

    @property
    def address(self) -> str:
        """What a study names."""
        return f"{self.head.machine.address}:{PORT}"

    def driver(self, log: Path, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """`tune-lora` on the head; what it says is appended to `log`."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                self.head.machine.command(str(_BIN / "tune-lora"), *words),
                env=self.environment | environment, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Every node."""
        self.forget()
        for node in [*self.workers, self.head]:
            self.remove(node)
        self.workers = []

    def lose_head(self) -> None:
        """The head goes; the nodes stay, without anyone to tell them what to do, until `forget` ends them."""
        self.remove(self.head)
        self._stray += self.workers
        self.workers = []

    def forget(self) -> None:
        """Ends what earlier clusters left."""
        strays, self._stray = self._stray, []
        for node in strays:
            self.remove(node)

    def remove(self, node: Node) -> None:
        """Ends a node for good."""
        node.kill()
        self._network.remove(node.machine)

    def _node(self, *options: str) -> Node:
        machine = self._network.machine(None if "--head" in options else self.head.machine)
        always = ("--disable-usage-stats", "--num-gpus=0", "--object-store-memory=80000000", "--block")
        # Two machines do not share Ray's folder.
        own = (f"--node-ip-address={machine.address}", f"--temp-dir={self._scratch}/{machine.address}")
        words = machine.command(str(_BIN / "ray"), "start", *own, *always, *options)
        log = (self._scratch / f"{machine.name}.log").open("wb")
        with log:
            process = subprocess.Popen(
                words, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        if "--head" in options:
            wait_until(lambda: _listens(machine), "the head answers")
        return Node(machine, process)


def _listens(machine: Machine) -> bool:
    program = f"import socket; socket.create_connection(('{machine.address}', {PORT}), 1)"
    words = machine.command(sys.executable, "-c", program)
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Raises TimeoutError where it does not come to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)
