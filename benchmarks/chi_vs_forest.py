"""The two-stage trainer against tuned trees on the measured chi values (MTL_ChiParameter), on the same grouped folds.

Two shipped studies are run for real, 50 trials each: `chi_value.yaml`, which minimises the error that the trees were
tuned for, and `chi.yaml`, which minimises the weighted score of the users' guide. The best and the default
configuration of each are then trained again with seeds that the search did not use, as the trees of
`make bench-chi_forests` are, and compared fold by fold. Stage 1 does not see the pairs of a test fold; the trees are
those on the same terms (measured values only, or with a model's prediction of the computed value). All were tuned on
these folds, and their features chosen there; so they are also compared on folds cut anew, which nothing was tuned on.
"""

from __future__ import annotations

import ast
import json
import os
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import chi_forests, common
from trainables.protocol import TrialContext
from trainables.transfer.data import TransferData
from trainables.two_stage import TwoStage
from tune_lora import gains, spec, study, trainers
from tune_lora.spec import StudySpec
from tune_lora.store import StudyRecord

FOLDER = Path(__file__).parents[1] / "search_spaces" / "studies"
STUDIES = {"chi": FOLDER / "chi_value.yaml", "chi_score": FOLDER / "chi.yaml"}
"""By what their figures begin with."""
OPPONENTS: dict[str, chi_forests.Computed] = {
    "chi_forest_none": "none",
    "chi_boosted_none": "none",
    "chi_forest_model": "model",
    "chi_boosted_model": "model",
}
OTHER_FOLDS = (1,) if common.QUICK else (1, 2)
"""Seeds of folds that nothing was tuned on."""
FRESH = (2101,) if common.QUICK else (2101, 2102, 2103)
N_TRIALS = 6 if common.QUICK else 50
CONFIDENCE = 0.9


def chi_study(file: Path, folder: Path, results: Path) -> StudySpec:
    """A shipped study on the tables in `folder`."""
    found = spec.load(file)
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


def by_fold(found: StudySpec, params: dict[str, Any], fold_seed: int, seeds: tuple[int, ...]) -> list[float]:
    """Mean absolute error of chi in each fold, the mean of fresh seeds of both stages."""
    errors: list[list[float]] = [[] for _ in range(found.cross_validation.n_folds)]
    for seed in seeds:
        trainer = trainers.trainer_of(found)
        assert isinstance(trainer, TwoStage)
        trainer = replace(trainer, folds="batched", stage1_seed=seed, fold_seed=fold_seed)
        with tempfile.TemporaryDirectory() as folder:
            context = TrialContext(params=params, folder=Path(folder), seed=seed, threads=1)
            *_, last = trainer.run(context)
        for fold, held in enumerate(errors, start=1):
            held.append(last.metrics[f"fold_{fold}_exp_mae"])
    return [statistics.fmean(held) for held in errors]


def opponent() -> tuple[str, str, chi_forests.Computed, dict[str, Any]]:
    """The best of the tuned trees on the same terms: its name, what it is, and its settings."""
    written = {one["name"]: one for one in json.loads((common.RESULTS / "chi_forests.json").read_text())}
    name = min(OPPONENTS, key=lambda one: float(written[one]["measured"]))
    family = name.split("_")[1]
    return name, family, OPPONENTS[name], ast.literal_eval(written[name]["note"].rpartition("; ")[2])


def _compared(trees: list[float], net: list[float]) -> tuple[float, str]:
    """By how much the second is better, and the same with its interval over the folds, in words."""
    found = gains.paired(dict(enumerate(trees)), dict(enumerate(net)), "minimize", CONFIDENCE)
    assert found is not None
    folds = ", ".join(f"{error:.3f}" for error in net)
    told = f"{statistics.fmean(net):.4f} against {statistics.fmean(trees):.4f}; better by {found.mean:+.4f} "
    return found.mean, f"{told}[{found.low:+.4f}, {found.high:+.4f}] over the folds ({CONFIDENCE:.0%}); by fold {folds}"


def _write(begins: str, found: StudySpec, record: StudyRecord, data: TransferData) -> None:
    assert record.best is not None
    first = next(trial for trial in record.trials if trial.provenance == "prior:baseline")
    best, default = dict(record.best.config), dict(first.config)
    name, family, way, settings = opponent()

    def trees(fold_seed: int, seeds: tuple[int, ...]) -> list[float]:
        return chi_forests.errors_of(data, data.fold_of(5, seed=fold_seed), family, way, settings, seeds)

    same = by_fold(found, best, 0, FRESH)
    anew = {seed: (trees(seed, FRESH[:1]), by_fold(found, best, seed, FRESH[:1])) for seed in OTHER_FOLDS}
    trials = f"{len(record.trials)} trials ({record.count('pruned')} pruned)"
    ran = f"{found.name}.yaml, {trials}, then {len(FRESH)} fresh seeds"
    gain, told = _compared(trees(0, FRESH), same)
    theirs, ours = ([error for pair in anew.values() for error in pair[side]] for side in (0, 1))
    other, told_anew = _compared(theirs, ours)
    over, told_default = _compared(by_fold(found, default, 0, FRESH), same)
    frozen, told_frozen = _compared(by_fold(found, default | {"freeze_encoder_stage2": True}, 0, FRESH), same)
    unit = "of mean absolute error of chi"
    common.write(
        f"{begins}_vs_forest",
        [
            common.result(
                f"{begins}_vs_forest",
                measured=round(gain, 4),
                goal="> 0" if begins == "chi" else None,
                unit=f"{unit} below the best tuned trees",
                runs=len(FRESH),
                note=f"{told}; {name}; {ran}; both tuned on these folds",
            ),
            common.result(
                f"{begins}_vs_forest_folds_anew",
                measured=round(other, 4),
                goal=None,
                unit=f"{unit} below the same trees",
                runs=len(OTHER_FOLDS),
                note=f"{told_anew}; folds cut with other seeds, which nothing was tuned on",
            ),
            common.result(
                f"{begins}_best_vs_default",
                measured=round(over, 4),
                goal=None,
                unit=f"{unit} below the study's default",
                runs=len(FRESH),
                note=f"{told_default}; encoders fine-tuned in both",
            ),
            common.result(
                f"{begins}_best_vs_frozen",
                measured=round(frozen, 4),
                goal=None,
                unit=f"{unit} below the frozen default",
                runs=len(FRESH),
                note=f"{told_frozen}; the default of the users' guide, with a frozen encoder",
            ),
        ],
    )


def main() -> None:
    folder = common.data_folder() / "chi"
    if not folder.is_dir():
        raise SystemExit(f"no tables in {folder}; they are those of MTL_ChiParameter")
    data = chi_forests.chi_data(folder)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(os.environ.get("CHI_RESULTS", scratch))
        for begins in sys.argv[1:] or STUDIES:
            found = chi_study(STUDIES[begins], folder.resolve(), results)
            _write(begins, found, study.run(found), data)


if __name__ == "__main__":
    main()
