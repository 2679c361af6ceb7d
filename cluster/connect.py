"""Opens and closes the Ray session: this machine, an existing cluster, or the job that this process runs in."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.spec import CPU_ONLY, Capacity, Node, TrialResources
from tune_lora.errors import InputError, TuneLoraError

_OBJECT_STORE_BYTES = 256 * 1024 * 1024  # trials exchange small results; images and weights go through files
_ANSWER_SECONDS = 10.0  # for a connection; Ray itself tries for minutes, and writes a warning every few seconds
_FOUND_BY_RAY = ("auto", "local")
_CLIENT = "ray://"
_KIND = "accelerator_type:"
_LOOK_SECONDS = 60.0
GPU = "gpu"
"""The kind of a node whose GPUs have no name."""


@contextmanager
def session(address: str | None = None) -> Generator[Capacity, None, None]:
    """A Ray session for the duration of the block; yields what the cluster has.

    A session that was open before is used and left open. A local one, which this opened, is shut down.

    Raises:
        InputError: nothing answers at the address, or it is no address.
    """
    if ray.is_initialized():
        yield capacity()
        return
    _open(address or os.environ.get("RAY_ADDRESS"))
    try:
        yield capacity()
    finally:
        ray.shutdown()


def _open(address: str | None) -> None:
    # A trial that was given no GPU must see none: it would train there, with as many others as there are CPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # Ray's own banners and worker prefixes would bury the study's view.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        ray.init(include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **quiet)
        return
    _check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"resources.address: no Ray cluster answers at {address!r}: {reason}") from error


def _check_answers(address: str) -> None:
    if address in _FOUND_BY_RAY:
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(
            f"resources.address: got {address!r}; must be host:port, {_CLIENT}host:port or auto, or left out"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"resources.address: no Ray cluster answers at {address!r}: {error.strerror or error}"
        ) from None


def capacity() -> Capacity:
    """What the machines have that are in the cluster now; needs an open session."""
    return Capacity.of(tuple(_node(found) for found in ray.nodes() if found["Alive"]))


def _node(found: dict[str, Any]) -> Node:
    has = found["Resources"]
    kinds = [name.removeprefix(_KIND) for name in has if name.startswith(_KIND)]
    return Node(
        name=found["NodeManagerHostname"],
        cpu=has.get("CPU", 0.0),
        gpu=has.get("GPU", 0.0),
        memory=has.get("memory", math.inf),
        kind=kinds[0] if kinds else GPU if has.get("GPU") else CPU_ONLY,
    )


class Watched:
    """What a cluster has, looked at again every few seconds: nodes join and leave while a study runs."""

    def __init__(self, every_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every_seconds, clock
        self._next, self._known = -math.inf, Capacity(0, 0)

    def __call__(self) -> Capacity:
        """As of a few seconds ago at most."""
        if (now := self._clock()) >= self._next:
            self._known, self._next = capacity(), now + self._every
        return self._known


def options(trial: TrialResources, kind: str = "") -> dict[str, Any]:
    """What a task asks Ray for, as a trial does; on a machine of a `kind` where it is given."""
    asked: dict[str, Any] = {"num_cpus": trial.cpu, "num_gpus": trial.gpu}
    if trial.memory:
        asked["memory"] = trial.memory
    if kind not in ("", CPU_ONLY, GPU):
        asked["resources"] = {f"{_KIND}{kind}": 0.001}
    return asked


def wait_for(trial: TrialResources, seconds: float) -> bool:
    """Waits until a trial could begin somewhere, and says whether it can. An autoscaler sees that it is wanted."""
    task = ray.remote(**options(trial))(_nothing).remote()
    ready, _ = ray.wait([task], timeout=seconds)
    if not ready:
        ray.cancel(task, force=True)
    return bool(ready)


class WorkerFailed(Exception):
    """What was run on a worker failed, or the worker was lost; says why in one line."""


def run_alone(function: Callable[..., Any], *arguments: Any, trial: TrialResources, kind: str = "") -> Any:
    """What a function returns on a worker of its own, which ends with it; on a machine of a `kind` where it is given.

    Raises:
        TuneLoraError: the function did.
        WorkerFailed: it raised anything else, or the worker was lost.
    """
    task = ray.remote(max_calls=1, **options(trial, kind))(function).remote(*arguments)
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TuneLoraError):
            raise error.cause from None
        raise WorkerFailed(str(error.cause or error).strip().splitlines()[-1]) from error
    except ray.exceptions.RayError as error:
        raise WorkerFailed(str(error).strip().splitlines()[0]) from error


def _nothing() -> None:
    """Runs where a trial could."""


def blind(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Machines of the cluster that do not see a path, each with the first that it does not see."""
    here = ray.get_runtime_context().get_node_id()
    others = {found["NodeID"]: found["NodeManagerHostname"] for found in ray.nodes() if found["Alive"]}
    others.pop(here, None)
    asked = {
        ray.remote(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))(_unseen).remote(
            list(paths)
        ): name
        for node, name in others.items()
    }
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_SECONDS) if asked else ([], [])
    return [(asked[one], missing) for one in answered if (missing := _answer(one)) is not None]


def _unseen(paths: list[str]) -> str | None:
    return next((path for path in paths if not Path(path).exists()), None)


def _answer(task: Any) -> str | None:
    try:
        found: str | None = ray.get(task)
    except ray.exceptions.RayError:  # the machine has just left; its trials are another's business
        return None
    return found
