"""How many trials of a study share a base: as it says, or as many as is measured to pay."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from cluster import capacity as fits
from cluster import connect
from cluster.spec import CPU_ONLY, Capacity, TrialResources
from search_spaces import points
from trainables import high_water
from trainables.llm_lora import MEASURED_BY_CLOCK
from trainables.pack_measure import measured
from trainables.pack_size import PackSize, Room, alone
from trainables.protocol import Packing, TrialContext
from tune_lora import drivers, packing_check, placing, store
from tune_lora.build import Plan
from tune_lora.errors import TuneLoraError
from tune_lora.heaviest import heaviest
from tune_lora.records import CLOCK
from tune_lora.spec import StudySpec
from tune_lora.trainers import kind_of

if TYPE_CHECKING:
    from tune_lora.study import View

TYPICAL = 4
"""Configurations that are timed; larger packs hold them several times."""
_DRAWS = 20
_FAR = 100_000
"""Epochs of a trial that is only measured: it does not come to its end."""
_GIB = 1024**3


def chosen(ready: Plan, study: optuna.Study, there: Capacity, view: View) -> int:
    """How many trials share a base, 1 where each trains by itself; kept with the study. ``auto`` is measured once a
    study on each kind of machine, and the kind on which the fewest pay decides; needs an open Ray session then.
    """
    found = _chosen(ready, study, there, view)
    if found > 1 and (clocked := _by_the_clock(ready.spec)):
        view.note(f"packing: {', '.join(clocked)} of a trial on a shared base depends on who is beside it")
    if found > 1 or store.PACKED in study.user_attrs:
        study.set_user_attr(store.PACKED, found)
    return found


def _chosen(ready: Plan, study: optuna.Study, there: Capacity, view: View) -> int:
    asked = ready.spec.resources.packing
    if not isinstance(asked, str):
        return asked
    if asked == "off":
        return 1
    if (why := next(packing_check.obstacles(ready.spec, ready.space, ready.trainer), None)) is not None:
        view.note(alone(why).why)
        return 1
    kinds = fits.to_measure(there)
    sizes = {kind: _size_on(kind, ready, study, there, view) for kind in kinds}
    for kind, size in sizes.items():
        view.note(size.why if len(kinds) == 1 else f"{kind}: {size.why}")
    found = min(size.size for size in sizes.values())
    most = at_most(ready.spec.budget.n_trials, fits.fitting(placing.asked(ready.spec.resources, there), there))
    if found > most:
        view.note(f"packing: {most} on a base, so that half of the study's trials learn from the others")
    return min(found, most)


def at_most(n_trials: int, packs: int) -> int:
    """Trials on each of so many bases with which no more than half of a study's train at a time: the others are
    suggested by what those have shown."""
    return max(1, n_trials // (2 * max(1, packs)))


def _by_the_clock(spec: StudySpec) -> list[str]:
    """What the study is about that is measured by the clock, or of the whole process."""
    about = [one.name for one in spec.objective.several] or [spec.objective.metric]
    return [name for name in about if name in (*CLOCK, *MEASURED_BY_CLOCK)]


def _size_on(kind: str, ready: Plan, study: optuna.Study, there: Capacity, view: View) -> PackSize:
    """As it was measured earlier for a pack of these resources, or is now. What could not be measured is not kept: the
    next run tries again."""
    trial, margin = placing.asked(ready.spec.resources, there), ready.spec.resources.margin
    has = f"{trial.cpu:g} CPUs, {trial.gpu:g} GPUs, {trial.memory} bytes, margin {margin:g}"
    key = f"{store.PACKING_PREFIX}{kind}, {has}"
    if (known := study.user_attrs.get(key)) is not None:
        return PackSize.from_mapping(json.loads(known))
    view.note(f"measuring how many trials pay on one base{'' if kind == CPU_ONLY else f', on {kind}'}")
    try:
        found = _on_a_worker(kind, ready, trial, room_on(kind, trial, there, margin))
    except (connect.WorkerFailed, TuneLoraError) as error:
        return alone(f"it could not be measured ({str(error).splitlines()[0]})")
    return PackSize.from_mapping(json.loads(drivers.agreed(study, key, json.dumps(asdict(found)))))


def _on_a_worker(kind: str, ready: Plan, trial: TrialResources, room: Room) -> PackSize:
    found: PackSize = connect.run_alone(
        _measured, ready.trainer, typical(ready), far(ready.spec, heaviest(ready.space)), room, trial,
        trial=trial, kind=kind,
    )  # fmt: skip
    return found


def room_on(kind: str, trial: TrialResources, there: Capacity, margin: float) -> Room:
    """What a pack has on a kind of machine: the RAM that the study asked for, else its part of a machine's where as
    many packs as fit run side by side."""
    nodes = [node for node in there.machines if node.kind == kind]
    memory = trial.memory or min((node.memory / max(1, fits.on_node(trial, node)) for node in nodes), default=math.inf)
    return Room(memory=memory, margin=margin)


def typical(ready: Plan) -> list[dict[str, Any]]:
    """Resolved configurations that keep the rules of the space, drawn by the study's seed; those that the trainer
    refuses are left out."""
    rng = np.random.default_rng(ready.spec.search.seed)
    drawn = (ready.space.resolve(points.draw(ready.space, rng)) for _ in range(_DRAWS))
    return [far(ready.spec, params) for params in _fit(ready, drawn)][:TYPICAL]


def _fit(ready: Plan, drawn: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (params for params in drawn if not ready.trainer.check(params))


def far(spec: StudySpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with an end that nobody comes to."""
    kind = kind_of(spec)
    shorter = {other for pair in kind.said_twice if kind.epochs in pair for other in pair}
    return {name: value for name, value in params.items() if name not in shorter} | {kind.epochs: _FAR}


# --- on the worker ---------------------------------------------------------------------------------------------------


def _measured(
    trainer: Packing, configs: Sequence[dict[str, Any]], heavy: dict[str, Any], room: Room, trial: TrialResources
) -> PackSize:
    light = high_water.held()  # what a process takes that only talks to the pack
    shared: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="tune-lora-") as folder:

        def context(params: dict[str, Any], seed: int) -> TrialContext:
            return TrialContext(params, Path(folder), seed, threads=max(1, int(trial.cpu)), shared=shared)

        timed = [context(params, seed) for seed, params in enumerate(configs)]
        share = trial.gpu if 0 < trial.gpu < 1 else 1.0
        return measured(trainer, timed, context(heavy, len(timed)), room=room, share=share, beside=light)
