"""Finished studies as their driver leaves them, made without a cluster: real trials, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.protocol import Preparing, TrialContext
from tune_lora import exports, same_study, spec, store
from tune_lora.build import plan
from tune_lora.searcher import StudySearcher


def finished(document: Mapping[str, Any]) -> Path:
    """The results folder of a study that has run as its file says; nothing is pruned."""
    asked = spec.from_mapping(document, "study.yaml")
    ready = plan(asked)
    asked.folder.mkdir(parents=True)
    study = store.open_study(asked.storage_url, asked.name, asked.objective.direction)
    same_study.settle(study, ready)
    shared: dict[str, Any] = {}
    if isinstance(ready.trainer, Preparing):
        base = asked.folder / "base"
        base.mkdir()
        prepared = ready.trainer.prepare(TrialContext(ready.space.resolve({}), base, seed=0, shared=shared))
        study.set_user_attr(store.BASELINE, prepared["baseline"])
        study.set_user_attr(store.CALIBRATION, prepared["calibration"])
        images = {name: str(Path(path).relative_to(asked.folder)) for name, path in prepared["images"].items()}
        study.set_user_attr(store.BASE_IMAGES, images)
    searcher = StudySearcher(
        study,
        ready.space,
        direction=asked.objective.direction,
        n_trials_total=asked.budget.n_trials,
        sampler="random",
        seed=asked.search.seed,
        trial_folder=lambda number: asked.folder / "trials" / str(number),
    )
    for number in range(asked.budget.n_trials):
        given = searcher.suggest(str(number))
        assert isinstance(given, dict)
        folder = asked.folder / "trials" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        context = TrialContext(given["params"], folder, seed=given["trial"]["seed"], shared=shared)
        for report in ready.trainer.run(context):
            told = {"budget": report.budget, "metrics": dict(report.metrics), "score": report.metrics.get("score")}
            searcher.on_trial_result(str(number), told | {"final": report.final})
        searcher.on_trial_complete(str(number), told | {"final": True})
    exports.write_study_file(asked.as_mapping(), asked.folder)
    return asked.folder
