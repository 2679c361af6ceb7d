"""Where a study's trials go: what one asks for, how many run side by side, and how that follows the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from cluster import capacity as fits
from cluster import connect
from cluster.spec import Capacity, Footprint, TrialResources
from trainables import shared_results
from tune_lora import measuring, same_study, store
from tune_lora.build import Plan
from tune_lora.errors import InputErrors
from tune_lora.spec import LARGEST_PACK, ResourcesSpec, StudySpec

if TYPE_CHECKING:
    from tune_lora.study import View

_GIB = 1024**3


@dataclass(frozen=True)
class Slots:
    """How the study's trials are placed: what one asks for, and how many run side by side at first. `now` is how many
    do now; None: always as many. `mark` is the file in the results that a worker must see to begin (None: any may).
    Where `seats` trials share a base, `trial` is what they ask for together."""

    trial: TrialResources
    count: int
    now: Callable[[], int] | None = None
    mark: Path | None = None
    seats: int = 1

    @property
    def threads(self) -> int:
        """CPU threads of one trial, or of those that share a base."""
        return max(1, int(self.trial.cpu))

    def limit(self) -> int:
        """How many may run side by side as of now."""
        return self.count if self.now is None else self.now()

    @property
    def asked(self) -> dict[str, float]:
        """What Tune asks Ray for."""
        memory = {"memory": self.trial.memory} if self.trial.memory else {}
        return {"cpu": self.trial.cpu, "gpu": self.trial.gpu, **memory}


def marked(spec: StudySpec) -> AbstractContextManager[Path | None]:
    """What workers know the results folder by, while the study runs; None where a mirror is what nodes share."""
    return nullcontext() if spec.resources.mirror else shared_results.marked(spec.folder)


def place(spec: StudySpec, there: Capacity, view: View, mark: Path | None = None) -> Slots:
    """Places the trials of a study; where they are to be measured, each has a GPU to itself until that is done
    (`packed`). Waits for a node where the study says so. `mark` is the driver's in the results
    (`trainables.shared_results`).

    Raises:
        InputError: none fits, or fewer than were asked for; a machine does not see what it must.
    """
    resources = spec.resources
    there = _with_a_node_for(asked(resources, there), resources, there, view)
    _check_all_see(spec, mark)
    return replace(fixed(resources, asked(resources, there), there, _most_seats(resources)), mark=mark, seats=1)


def packed(placed: Slots, ready: Plan, study: optuna.Study, view: View) -> Slots:
    """The same with as many trials side by side as fit by what one was measured to need, where that was asked for.

    Raises:
        InputError: fewer fit than were asked for.
        StudyError: a trial cannot be measured.
    """
    resources = ready.spec.resources
    if not resources.is_measured:
        return placed
    there = connect.capacity()
    trial = _packed(resources, _footprints(ready, study, there, view), view)
    return replace(fixed(resources, trial, there), mark=placed.mark)


def shared(placed: Slots, resources: ResourcesSpec, seats: int) -> Slots:
    """The same with so many trials on each base.

    Raises:
        InputError: fewer fit than were asked for.
    """
    if resources.packing == "off":
        return placed
    return replace(fixed(resources, placed.trial, connect.capacity(), seats), mark=placed.mark)


def _most_seats(resources: ResourcesSpec) -> int:
    """How many trials may come to share a base; ``auto`` is not measured yet."""
    most = {"off": 1, "auto": LARGEST_PACK}
    return most[resources.packing] if isinstance(resources.packing, str) else resources.packing


def fixed(resources: ResourcesSpec, trial: TrialResources, there: Capacity, seats: int = 1) -> Slots:
    """Slots for trials of a known size, or for so many `seats` as share what one of them asks for."""
    grows = resources.wait_hours is not None
    fitting = seats * (fits.fitting(trial, there) if grows else fits.slots(trial, there))
    count = fits.concurrent(resources.concurrent, fitting, grows=grows)
    watched = connect.Watched()

    def now() -> int:
        left = seats * fits.fitting(trial, watched())
        most = left if resources.concurrent == "auto" else min(int(resources.concurrent), left)
        # One may always begin: where all nodes have left, Ray sees that one is wanted.
        return fits.concurrent(resources.concurrent, left, grows=True) if grows else max(1, most)

    return Slots(trial, count, now, seats=seats)


def asked(resources: ResourcesSpec, there: Capacity) -> TrialResources:
    """What a trial asks for by the file, as far as that says."""
    gpu = None if resources.gpu == "auto" else resources.gpu
    memory = int(resources.memory * _GIB) if isinstance(resources.memory, float) else 0
    return TrialResources(resources.cpu, fits.gpus_per_trial(gpu, there, resources.together), memory)


def _with_a_node_for(trial: TrialResources, resources: ResourcesSpec, there: Capacity, view: View) -> Capacity:
    """The cluster once a trial fits somewhere: at once, or when a node has joined, where the study waits for one."""
    if fits.fitting(trial, there) or resources.wait_hours is None:
        fits.slots(trial, there)
        return there
    view.note(
        f"waiting for a node with {trial.cpu:g} CPUs and {trial.gpu:g} GPUs, for {resources.wait_hours:g} h at most"
    )
    connect.wait_for(trial, resources.wait_hours * 3600)
    there = connect.capacity()
    fits.slots(trial, there)  # the one line that says what is missing, where it still is
    return there


def _check_all_see(spec: StudySpec, mark: Path | None) -> None:
    """Refuses machines that do not see the results or the data: their trials would be lost, or fail. (Of nodes that
    join later each worker looks for itself.)"""
    marks = {} if mark is None else {str(mark): str(shared_results.folder_of(mark))}
    paths = [*marks, *(path for path in same_study.data_paths(spec) if path.startswith("/"))]
    if found := connect.blind(paths):
        raise InputErrors(
            f"{marks.get(missing, missing)}: node {name} does not see it; must be a path that all nodes see"
            for name, missing in found
        )


# --- measured --------------------------------------------------------------------------------------------------------


def _footprints(ready: Plan, study: optuna.Study, there: Capacity, view: View) -> list[Footprint]:
    """What a trial needs on each kind of machine, measured once a study."""
    known = {kind: Footprint(**found) for kind, found in study.user_attrs.get(store.FOOTPRINTS, {}).items()}
    wanted = fits.to_measure(there)
    for kind in wanted:
        if kind not in known:
            view.note(f"measuring how much memory a trial needs{'' if kind == 'cpu' else f' on {kind}'}")
            known[kind] = measuring.footprint(ready, kind, has_gpu=any(node.gpu >= 1 for node in there.machines))
            study.set_user_attr(store.FOOTPRINTS, {name: asdict(one) for name, one in known.items()})
    return [known[kind] for kind in wanted]


def _packed(resources: ResourcesSpec, footprints: Sequence[Footprint], view: View) -> TrialResources:
    trial = fits.packed(
        resources.cpu,
        footprints,
        resources.margin,
        gpu=resources.gpu if isinstance(resources.gpu, float) else None,
        memory=int(resources.memory * _GIB) if isinstance(resources.memory, float) else None,
    )
    of_gpu = max(one.gpu for one in footprints)
    share = f", {of_gpu / _GIB:.2f} GiB of its GPU: {trial.gpu:g} GPUs each" if of_gpu else ""
    needs = max(one.memory for one in footprints) / _GIB
    view.note(
        f"a trial was measured to need {needs:.2f} GiB of RAM{share}; {resources.margin:.0%} more is kept for each"
    )
    return trial
