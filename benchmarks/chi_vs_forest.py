"""The two-stage trainer against tuned trees on the measured chi values (MTL_ChiParameter), on the same grouped folds.

The shipped study `chi.yaml` is run for real, 50 trials. Its best and its default configuration are then trained again
with seeds that the search did not use, as the trees of `make bench-chi_forests` are, and compared fold by fold. Stage 1
does not see the pairs of a test fold; the trees are those on the same terms (measured values only, or with a model's
prediction of the computed value).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import common
from trainables.protocol import TrialContext
from trainables.two_stage import TwoStage
from tune_lora import gains, spec, study, trainers
from tune_lora.spec import StudySpec
from tune_lora.store import StudyRecord

STUDY = Path(__file__).parents[1] / "search_spaces" / "studies" / "chi.yaml"
OPPONENTS = ("chi_forest_none", "chi_boosted_none", "chi_forest_model", "chi_boosted_model")
FRESH = (2101,) if common.QUICK else (2101, 2102, 2103)
N_TRIALS = 6 if common.QUICK else 50
CONFIDENCE = 0.9


def chi_study(folder: Path, results: Path) -> StudySpec:
    """The shipped study on the tables in `folder`."""
    found = spec.load(STUDY)
    assert found.transfer is not None
    assert found.transfer.stage1 is not None
    assert found.transfer.stage2 is not None
    stage1 = found.transfer.stage1.model_copy(update={"path": str(folder / "data_COSMO.csv")})
    labels = found.transfer.stage2.labels
    assert labels is not None
    labels = labels.model_copy(update={"path": str(folder / "data_PI.csv")})
    stage2 = found.transfer.stage2.model_copy(update={"path": str(folder / "data_Chi.csv"), "labels": labels})
    transfer = found.transfer.model_copy(update={"stage1": stage1, "stage2": stage2})
    budget = found.budget.model_copy(update={"n_trials": N_TRIALS})
    tracking = found.tracking.model_copy(update={"wandb": "off"})
    changes = {"transfer": transfer, "results": str(results), "budget": budget, "tracking": tracking}
    return found.model_copy(update=changes)


def by_fold(found: StudySpec, params: dict[str, Any]) -> dict[int, float]:
    """Mean absolute error of chi in each fold, the mean of fresh seeds of both stages."""
    errors: dict[int, list[float]] = {}
    for seed in FRESH:
        trainer = trainers.trainer_of(found)
        assert isinstance(trainer, TwoStage)
        trainer = replace(trainer, folds="batched", stage1_seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            context = TrialContext(params=params, folder=Path(folder), seed=seed, threads=1)
            *_, last = trainer.run(context)
        for name, value in last.metrics.items():
            if match := re.fullmatch(r"fold_(\d+)_exp_mae", name):
                errors.setdefault(int(match[1]), []).append(value)
    return {fold: statistics.fmean(values) for fold, values in sorted(errors.items())}


def opponent() -> tuple[str, dict[int, float]]:
    """The best of the tuned trees on the same terms, and its error in each fold with fresh seeds."""
    written = {one["name"]: one for one in json.loads((common.RESULTS / "chi_forests.json").read_text())}
    name = min(OPPONENTS, key=lambda one: float(written[one]["measured"]))
    found = re.search(r"by fold ([0-9., ]+);", written[name]["note"])
    if found is None:
        raise SystemExit("chi_forests.json has no errors by fold; run make bench-chi_forests")
    return name, {fold: float(text) for fold, text in enumerate(found[1].split(","), start=1)}


def _told(before: dict[int, float], after: dict[int, float]) -> str:
    found = gains.paired(before, after, "minimize", CONFIDENCE)
    assert found is not None
    folds = ", ".join(f"{error:.3f}" for error in after.values())
    return f"by fold {folds}; difference {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] over the folds"


def _write(found: StudySpec, record: StudyRecord) -> None:
    assert record.best is not None
    first = next(trial for trial in record.trials if trial.provenance == "prior:baseline")
    best, default = by_fold(found, dict(record.best.config)), by_fold(found, dict(first.config))
    name, trees = opponent()
    mean = {label: statistics.fmean(errors.values()) for label, errors in
            (("best", best), ("default", default), ("trees", trees))}  # fmt: skip
    setting = f"chi.yaml, {len(record.trials)} trials ({record.count('pruned')} pruned), then {len(FRESH)} fresh seeds"
    common.write(
        "chi_vs_forest",
        [
            common.result(
                "chi_vs_forest", measured=round(mean["trees"] - mean["best"], 4), goal="> 0",
                unit="of mean absolute error below the best tuned trees", runs=len(FRESH),
                note=f"{mean['best']:.4f} against {mean['trees']:.4f} ({name}); {setting}; {_told(trees, best)}",
            ),
            common.result(
                "chi_best_vs_default", measured=round(mean["default"] - mean["best"], 4), goal=None,
                unit="of mean absolute error below the default configuration", runs=len(FRESH),
                note=f"{mean['best']:.4f} against {mean['default']:.4f}; {setting}; {_told(default, best)}",
            ),
        ],
    )  # fmt: skip


def main() -> None:
    folder = common.data_folder() / "chi"
    if not folder.is_dir():
        raise SystemExit(f"no tables in {folder}; they are those of MTL_ChiParameter")
    with tempfile.TemporaryDirectory() as scratch:
        found = chi_study(folder.resolve(), Path(os.environ.get("CHI_RESULTS", scratch)))
        _write(found, study.run(found))


if __name__ == "__main__":
    main()
