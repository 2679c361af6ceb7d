"""Every step is looked at: a loss or gradient that goes wrong ends the trial with a named cause."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from trainables.protocol import Cause, TrialFailure

WINDOW = 16
EXPLODED = 10.0
_REFUSALS = ("allocate memory", "out of memory", "ALLOC_FAILED")
"""How the CPU's allocator, the CUDA runtime and its libraries say that there is no memory left."""


class Watch:
    """Judges loss (per micro-batch) and gradient norm (per optimizer step, before clipping) of one trial.

    A non-finite loss is `nan_loss`. A non-finite norm with a finite loss, or a mean loss over the last 16
    micro-batches above ten times that of the first 16, is `gradient_explosion`.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._first: float | None = None

    def loss(self, value: float, step: int) -> None:
        """Raises TrialFailure when the loss is not finite or has exploded."""
        if not math.isfinite(value):
            raise TrialFailure(Cause.NAN_LOSS, f"loss is {value} at step {step}")
        self._recent.append(value)
        if len(self._recent) < WINDOW:
            return
        mean = sum(self._recent) / WINDOW
        if self._first is None:
            self._first = mean
        elif mean > EXPLODED * self._first:
            raise TrialFailure(
                Cause.GRADIENT_EXPLOSION, f"mean loss rose from {self._first:.3g} to {mean:.3g} by step {step}"
            )

    def state(self) -> dict[str, Any]:
        """What has been seen, so that a restored trial is judged by its own beginning."""
        return {"recent": list(self._recent), "first": self._first}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Loads what `state` gave."""
        self._recent = deque(state["recent"], maxlen=WINDOW)
        self._first = state["first"]

    def gradient(self, norm: float, step: int) -> None:
        """Raises TrialFailure when the gradient norm is not finite."""
        if not math.isfinite(norm):
            raise TrialFailure(Cause.GRADIENT_EXPLOSION, f"gradient norm is {norm} at step {step}")


@contextmanager
def out_of_memory_is_a_cause() -> Generator[None, None, None]:
    """Turns the device's or the machine's refusal of memory into a TrialFailure that says what was asked."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrialFailure(Cause.OUT_OF_MEMORY, _first_line(error)) from None
    except MemoryError as error:
        raise TrialFailure(Cause.OUT_OF_MEMORY, _first_line(error)) from None
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _REFUSALS):
            raise
        raise TrialFailure(Cause.OUT_OF_MEMORY, _first_line(error)) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
