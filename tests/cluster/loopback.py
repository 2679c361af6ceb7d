"""A real Ray cluster on this machine for a test: a head with dashboard and token that trains nothing, and workers."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MARK = "TUNE_LORA_TEST_CLUSTER"
_COUNT = """
import ray
ray.init(logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""
RAY = str(Path(sys.executable).with_name("ray"))
TUNE_LORA = str(Path(sys.executable).with_name("tune-lora"))


class Cluster:
    """Its nodes are processes of this machine, found again by a mark in their environment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.token = folder, secrets.token_hex(32)
        self.port, self.dashboard = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard}"
        self._nodes: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Of a client that knows the token."""
        kept = {
            name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        }
        return {**kept, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "OMP_NUM_THREADS": "1", **more}

    def start_head(self, cpus: int = 0) -> None:
        """The head, with its dashboard on loopback."""
        self._start(
            "--head", f"--port={self.port}", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}", f"--ray-client-server-port={free_port()}", f"--num-cpus={cpus}",
            f"--temp-dir={self.folder}",
        )  # fmt: skip
        wait_until(lambda: is_open(self.dashboard), "the dashboard answers")

    def start_worker(self, cpus: int = 1, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """A node that trains; `before` are words of a command that runs another."""
        own = self.folder / f"w{len(self._nodes)}"  # two machines do not share Ray's folder
        own.mkdir()
        return self._start(
            f"--address=127.0.0.1:{self.port}", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1",
            f"--temp-dir={own}", before=before,
        )  # fmt: skip

    def nodes(self) -> int:
        """How many are in the cluster."""
        environment = self.environment(RAY_ADDRESS=f"127.0.0.1:{self.port}")
        said = subprocess.run([sys.executable, "-c", _COUNT], env=environment, capture_output=True, text=True)
        return int(said.stdout.strip() or 0)

    def _start(self, *options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        always = ("--num-gpus=0", "--object-store-memory=100000000", "--disable-usage-stats", "--block")
        # Without the folder of the environment on PATH: a job must find Ray's own Python all the same.
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != Path(RAY).parent)
        with (self.folder / f"node-{len(self._nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                [*before, RAY, "start", *options, f"--dashboard-agent-listen-port={free_port()}", *always],
                # Ray runs workers at niceness 15: beside other work on the same cores they would stand still.
                env=self.environment(**{MARK: str(self.folder), "PATH": path, "RAY_worker_niceness": "0"}),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._nodes.append(node)
        return node

    def run(self, *command: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """tune-lora, as on the machine of a user."""
        return subprocess.run(
            [TUNE_LORA, *command], cwd=cwd or self.folder, env=self.environment(**more), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip

    def begin(self, *command: str, log: Path, **more: str) -> subprocess.Popen[bytes]:
        """The same in the background."""
        with log.open("wb") as stream:
            return subprocess.Popen(
                [TUNE_LORA, *command], cwd=self.folder, env=self.environment(**more), stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def end(self) -> None:
        """Ends all that was started here, whatever state it is in."""
        for process in marked(self.folder):
            process.kill()
        for node in self._nodes:
            node.wait()


@contextmanager
def cluster(workers: tuple[int, ...] = (2,)) -> Iterator[Cluster]:
    """A head and workers with so many CPUs each, ended with the block."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="xc"))  # Ray's sockets need short paths
    found = Cluster(folder)
    try:
        found.start_head()
        for cpus in workers:
            found.start_worker(cpus)
        yield found
    finally:
        found.end()
        shutil.rmtree(folder, ignore_errors=True)


def marked(folder: Path) -> list[psutil.Process]:
    """Living processes that carry the mark of a cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 400) -> None:
    """Waits, however slow the machine is; fails when it never comes."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)


def study(folder: Path, **changes: object) -> Mapping[str, object]:
    """A study of learning curves that takes seconds."""
    return {
        "name": "curves",
        "trainer": "curve",
        "space": {"name": "one", "parameters": {"learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
                                                "max_train_epochs": {"type": "categorical", "choices": [3]}},
                  "priors": {"usual": {"params": {"learning_rate": 1e-3, "max_train_epochs": 3}}}},
        "scheduler": {"name": "none"},
        "search": {"priors": True, "n_startup_trials": 2},
        "budget": {"n_trials": 3, "plateau": None},
        "resources": {"gpu": 0},
        "tracking": {"wandb": "off"},
        "results": str(folder / "results"),
        **changes,
    }  # fmt: skip
