"""Small pieces of work on the workers of an open Ray session, each answered as soon as it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from cluster.connect import options
from cluster.spec import TrialResources
from tune_lora.errors import TuneLoraError

LOOK_SECONDS = 1.0
"""How long the driver waits at a time, so that it hears ctrl-C and SIGTERM."""
_RETRIES = 3
"""Of a piece of work whose worker was lost."""


@dataclass(frozen=True)
class Answer:
    """Which piece of work it is of, and what came of it: `value`, or else in `lost` why its worker never told."""

    place: int
    value: Any = None
    lost: str = ""


def answers(
    function: Callable[..., Any], work: Sequence[tuple[Any, ...]], *, trial: TrialResources, at_most: int
) -> Generator[Answer, None, None]:
    """Calls `function` with each tuple of arguments on a worker, `at_most` at a time, and yields answers as they come.

    Work begins in the order given. A worker goes on to the next piece, so that what one keeps in its process serves
    again; one that is lost is started anew. When all is done, or the caller leaves early, the workers end and with them
    what they hold of a GPU.

    Raises:
        TuneLoraError: the function did.
        Exception: whatever else the function raised.
    """
    asked = {**options(trial), "max_restarts": _RETRIES, "max_task_retries": _RETRIES}
    idle = [ray.remote(**asked)(_Worker).remote() for _ in range(min(max(1, at_most), len(work)))]
    workers, waiting = list(idle), list(enumerate(work))
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                place, arguments = waiting.pop(0)
                worker = idle.pop(0)
                running[worker.call.remote(function, *arguments)] = (place, worker)
            done, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            for one in done:
                place, worker = running.pop(one)
                answer = _answer(place, one)
                if not answer.lost or not running:  # one that is lost for good takes no more, unless it is the last
                    idle.append(worker)
                yield answer
    finally:
        for worker in workers:
            ray.kill(worker)


class _Worker:
    """A process that does one piece of work after the other."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns."""
        return function(*arguments)


def _answer(place: int, task: Any) -> Answer:
    try:
        return Answer(place, ray.get(task))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, TuneLoraError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:  # the worker was lost more often than it is tried
        return Answer(place, lost=str(error).strip().splitlines()[0])
