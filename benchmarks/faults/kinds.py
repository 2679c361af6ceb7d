"""The kinds of fault, each really made. A function gets the run at the moment that was drawn and leaves the cluster
able to go on, as its operator would."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from benchmarks.faults.cluster import Cluster, Node, wait_until
from benchmarks.faults.trial_study import Run, one_of, trainings

Fault = Callable[[Run, Random], None]


def driver_killed(run: Run, random: Random) -> None:
    """kill -9."""
    del random
    run.end()


def worker_killed(run: Run, random: Random) -> None:
    """kill -9 of a process that trains."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(one_of(list(trainings(run.cluster)), random), signal.SIGKILL)


def sigterm(run: Run, random: Random) -> None:
    """SIGTERM to the driver, or to a process that trains."""
    if random.random() < 0.5:
        os.kill(run.driver.pid, signal.SIGTERM)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one_of(list(trainings(run.cluster)), random), signal.SIGTERM)


def node_killed(run: Run, random: Random) -> None:
    """A node that trains loses its power; later there is another."""
    node = _training_node(run.cluster, random)
    run.cluster.remove(node)
    run.cluster.workers.remove(node)
    run.cluster.add_worker()


def head_killed(run: Run, random: Random) -> None:
    """The head loses its power, and with it the driver; the nodes stay, and still train, while a new cluster starts."""
    del random
    run.cluster.lose_head()
    run.driver.wait()
    run.cluster.start()


def network_cut(run: Run, random: Random) -> None:
    """The cable of a node that trains is pulled; after some seconds it is back, and the node with it."""
    node = _training_node(run.cluster, random)
    node.machine.cut()
    time.sleep(random.uniform(3, 15))  # it is given up after about 5
    node.machine.join()


def disk_full(run: Run, random: Random) -> None:
    """The disk that holds study, trials and checkpoints is full for some seconds."""
    filler = run.folder / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(_Full):
                while True:
                    _write(stream.fileno(), size)
    time.sleep(
        random.choice((random.uniform(0.5, 5), random.uniform(12, 20)))
    )  # shorter and longer than it is waited for
    filler.unlink()


def checkpoint_corrupted(run: Run, random: Random) -> None:
    """The driver is killed, and the newest checkpoints of the trials that were running are damaged."""
    run.end()
    time.sleep(2)  # its workers end with it
    for number in _running(run.results):
        whole = sorted(path for path in run.results.glob(f"trials/{number}/checkpoint/*") if path.name.isdigit())
        if whole:
            _damage(whole[-1] / "curve.json", random)


def wandb_unreachable(run: Run, random: Random) -> None:
    """The server that answered until now hangs; `run.environment` named it."""
    del random
    os.kill(int(run.environment["FAULTS_SERVER"]), signal.SIGSTOP)


FAULTS: dict[str, Fault] = {
    "driver_killed": driver_killed,
    "worker_killed": worker_killed,
    "node_killed": node_killed,
    "head_killed": head_killed,
    "network_cut": network_cut,
    "disk_full": disk_full,
    "checkpoint_corrupted": checkpoint_corrupted,
    "wandb_unreachable": wandb_unreachable,
    "sigterm": sigterm,
}
REPEATED_AT_MOST = {"checkpoint_corrupted": 2}
"""Epochs of one trial that may be begun again; one where nothing is said."""

_SERVER = """
import http.server
class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(503); self.end_headers()
    do_GET = do_POST
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Refusing).serve_forever()
"""


def server_command(cluster: Cluster) -> list[str]:
    """A server on the head that stands for Weights & Biases, and refuses what it is sent."""
    return cluster.head.machine.command(sys.executable, "-c", _SERVER)


class _Full(Exception):
    pass


def _write(handle: int, size: int) -> None:
    try:
        os.write(handle, b"\0" * size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from None


def _training_node(cluster: Cluster, random: Random) -> Node:
    wait_until(lambda: bool(trainings(cluster)), "something trains", seconds=20)
    return cluster.workers[one_of(sorted(set(trainings(cluster).values())), random)]


def _running(folder: Path) -> list[int]:
    from tune_lora import store

    return [trial.number for trial in store.load(folder).trials if trial.state == "running"]


def _damage(path: Path, random: Random) -> None:
    """Truncated, emptied, changed in one bit, or gone."""
    content = bytearray(path.read_bytes())
    kind = random.choice(("truncated", "emptied", "changed", "gone"))
    if kind == "changed":
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    if kind == "gone":
        path.unlink()
        return
    path.write_bytes({"truncated": content[: len(content) // 2], "emptied": b"", "changed": bytes(content)}[kind])
