"""How many trials fit. Pure."""

from __future__ import annotations

import math

from cluster.spec import Capacity, TrialResources
from tune_lora.errors import InputError


def gpus_per_trial(asked: float | None, capacity: Capacity, processes: int = 1) -> float:
    """What was asked; without a word, one GPU for each process where there are GPUs, and none where there are none."""
    return (float(processes) if capacity.gpu >= 1 else 0.0) if asked is None else asked


def slots(trial: TrialResources, capacity: Capacity) -> int:
    """How many trials fit side by side.

    Raises:
        InputError: not even one does.
    """
    if trial.cpu > capacity.cpu:
        raise InputError(f"resources.cpu: got {trial.cpu:g} a trial; must be at most {capacity.cpu:g}, all there are")
    if trial.gpu > capacity.gpu:
        have = f"{capacity.gpu:g}, all there are" if capacity.gpu else "0: this machine or cluster has no GPU"
        raise InputError(f"resources.gpu: got {trial.gpu:g} a trial; must be at most {have}")
    by_cpu = math.floor(capacity.cpu / trial.cpu + 1e-9)
    if trial.gpu == 0:
        return by_cpu
    # A share must fit on one device; whole devices are counted across all.
    by_gpu = math.floor(1 / trial.gpu + 1e-9) * capacity.gpu if trial.gpu < 1 else capacity.gpu // trial.gpu
    return min(by_cpu, int(by_gpu))


def concurrent(asked: int | str, fitting: int) -> int:
    """How many run at a time: ``auto`` is as many as fit.

    Raises:
        InputError: more were asked for than fit.
    """
    if asked == "auto":
        return fitting
    if int(asked) > fitting:
        raise InputError(f"resources.concurrent: got {asked}; must be at most {fitting}, as many as fit side by side")
    return int(asked)
