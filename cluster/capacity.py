"""How many trials fit, machine by machine, and how they share a GPU. Pure.

A trial runs on one machine, so what counts is what each machine has, and not the sum: two machines of two GPUs hold no
trial of four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cluster.spec import Capacity, Footprint, Node, TrialResources
from tune_lora.errors import InputError

MOST_ON_ONE_GPU = 8
"""However small a trial is: beyond that they wait for each other's computing, and each has its own copy of the base."""
_GIB = 1024**3
_RAYS_PRECISION = 10_000
"""Ray counts resources in ten-thousandths."""
_TINY = 1e-9


def gpus_per_trial(asked: float | None, capacity: Capacity, processes: int = 1) -> float:
    """What was asked; without a word, one GPU for each process where there are GPUs, and none where there are none."""
    return (float(processes) if capacity.gpu >= 1 else 0.0) if asked is None else asked


def on_node(trial: TrialResources, node: Node) -> int:
    """How many trials fit side by side on one machine. A share of a GPU fits on one device; whole devices are counted
    across the machine's."""
    counts = [math.floor(node.cpu / trial.cpu + _TINY)]
    if trial.memory and node.memory < math.inf:
        counts.append(int(node.memory // trial.memory))
    if 0 < trial.gpu < 1:
        counts.append(math.floor(1 / trial.gpu + _TINY) * int(node.gpu))
    elif trial.gpu:
        counts.append(int(node.gpu // trial.gpu))
    return min(counts)


def placement(trial: TrialResources, capacity: Capacity) -> tuple[int, ...]:
    """How many trials fit side by side on each of the machines."""
    return tuple(on_node(trial, node) for node in capacity.machines)


def fitting(trial: TrialResources, capacity: Capacity) -> int:
    """How many trials fit side by side; may be none."""
    return sum(placement(trial, capacity))


def slots(trial: TrialResources, capacity: Capacity) -> int:
    """How many trials fit side by side, at least one.

    Raises:
        InputError: not even one does.
    """
    if found := fitting(trial, capacity):
        return found
    raise InputError(_why_none(trial, capacity))


def _why_none(trial: TrialResources, capacity: Capacity) -> str:
    machines = capacity.machines
    those = "all there are" if len(machines) == 1 else "the most that one node has"
    if trial.cpu > (most := max(node.cpu for node in machines)) + _TINY:
        return f"resources.cpu: got {trial.cpu:g} a trial; must be at most {most:g}, {those}"
    if trial.gpu > (most := max(node.gpu for node in machines)):
        have = f"{most:g}, {those}" if most else "0: this machine or cluster has no GPU"
        return f"resources.gpu: got {trial.gpu:g} a trial; must be at most {have}"
    if trial.memory > (most := max(node.memory for node in machines)):
        asked, there = trial.memory / _GIB, most / _GIB
        return f"resources.memory: got {asked:.1f} GiB a trial; must be at most {there:.1f} GiB, {those}"
    has = "; ".join(sorted({f"{node.cpu:g} CPUs with {node.gpu:g} GPUs" for node in machines}))
    asked_for = f"{trial.cpu:g} CPUs and {trial.gpu:g} GPUs"
    return f"resources: got {asked_for} a trial; must fit on one node, and there are nodes of {has}"


def concurrent(asked: int | str, fitting_now: int, *, grows: bool = False) -> int:
    """How many run at a time: ``auto`` is as many as fit. Where the cluster `grows`, a number is the most there will
    be, and ``auto`` asks for one more than fits, so that an autoscaler sees that a node is wanted.

    Raises:
        InputError: more were asked for than fit.
    """
    if grows:
        return fitting_now + 1 if asked == "auto" else min(int(asked), fitting_now + 1)
    if asked == "auto":
        return fitting_now
    if int(asked) > fitting_now:
        raise InputError(
            f"resources.concurrent: got {asked}; must be at most {fitting_now}, as many as fit side by side"
        )
    return int(asked)


# --- measured --------------------------------------------------------------------------------------------------------


def to_measure(capacity: Capacity) -> tuple[str, ...]:
    """The kinds of machines on which a trial is measured: those with GPUs, where there are any; each kind once."""
    machines = [node for node in capacity.machines if node.gpu >= 1] or list(capacity.machines)
    return tuple(dict.fromkeys(node.kind for node in machines))


def with_margin(need: int, margin: float) -> int:
    """Bytes with a share more."""
    return math.ceil(need * (1 + margin))


def together_on(footprint: Footprint, margin: float, most: int = MOST_ON_ONE_GPU) -> int:
    """How many trials share a GPU of the kind that one was measured on; one that fits only without the margin has it
    alone."""
    if not footprint.gpu:
        return most
    return max(1, min(most, footprint.device // with_margin(footprint.gpu, margin)))


def packed(
    cpu: float, footprints: Sequence[Footprint], margin: float, *, gpu: float | None, memory: int | None
) -> TrialResources:
    """What a trial asks for so that as many as fit run side by side. `gpu` and `memory` are what was asked for, None
    where it is what was measured. All trials of a study ask for the same, so what fits on every kind counts."""
    with_gpu = [one for one in footprints if one.device]
    if gpu is None:
        gpu = _share(min(together_on(one, margin) for one in with_gpu)) if with_gpu else 0.0
    if memory is None:
        memory = max(with_margin(one.memory, margin) for one in footprints)
    return TrialResources(cpu, gpu, memory)


def _share(parts: int) -> float:
    """One of so many parts of a GPU, rounded down as Ray counts, so that all parts fit."""
    return 1.0 if parts == 1 else math.floor(_RAYS_PRECISION / parts) / _RAYS_PRECISION
