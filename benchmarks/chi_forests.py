"""What tuned trees reach on the measured chi values (MTL_ChiParameter): the opponents of the two-stage trainer.

A random forest (or extremely randomised trees) and gradient boosting (histograms or exact) of scikit-learn, each tuned
by TPE over 50 configurations on the very folds that the two-stage trainer is judged on: 5 folds of polymer classes.
Trees may use the computed values too, in each of three ways: not at all; the prediction of a model of the computed
values that has not seen the pairs of the test fold (the terms of ``exclude_overlap: true``); the computed value of
the very pair, where there is one (the terms of ``exclude_overlap: false``).
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)

from benchmarks import common
from trainables.tables import LabelSource, SmilesColumn, TableSource
from trainables.transfer.data import TransferData, TransferTables

Computed = Literal["none", "model", "value"]
FAMILIES = ("forest", "boosted")
WAYS: Mapping[Computed, str] = {
    "none": "measured values only",
    "model": "with a model's prediction of the computed value, trained without the pairs of the test fold",
    "value": "with the computed value of the pair itself",
}
N_TRIALS = 4 if common.QUICK else 50
FRESH = (101, 102, 103)
"""Seeds of the winner's models, which the tuning did not use."""
TREES = 60, 200
"""Of a forest while it is tuned, and of the winner: more are never worse, and take longer."""


@dataclass(frozen=True)
class Tuned:
    """The best of a family: its settings, and its mean absolute error in each fold as tuned and with fresh seeds."""

    params: Mapping[str, Any]
    tuned: tuple[float, ...]
    fresh: tuple[float, ...]


def chi_data(folder: Path) -> TransferData:
    """Both tables, with per-atom descriptors of polymer and solvent and the temperature."""
    pair = SmilesColumn("ps_pair", split="_", parts=("polymer", "solvent"), per_atom=True)
    labels = LabelSource(folder / "data_PI.csv", "soluble", match=("ps_pair", "polymer_class"))
    return TransferTables(
        TableSource(folder / "data_COSMO.csv", ("temp",), "chi", smiles=(pair,)),
        TableSource(folder / "data_Chi.csv", ("temp",), "chi", group="polymer_class", smiles=(pair,), labels=labels),
    ).load()


def opponents(
    data: TransferData, fold_of: np.ndarray, n_trials: int = N_TRIALS, ways: Sequence[Computed] = tuple(WAYS)
) -> dict[tuple[str, Computed], Tuned]:
    """The tuned trees by family and by what they make of computed values."""
    varied = data.x.std(axis=0) > 0
    found = {}
    for way in ways:
        tables = [_features(data, fold_of, fold, way, varied) for fold in range(int(fold_of.max()) + 1)]
        for family in FAMILIES:
            found[family, way] = _tuned(family, data.y, fold_of, tables, n_trials)
    return found


def _tuned(family: str, y: np.ndarray, fold_of: np.ndarray, tables: Sequence[np.ndarray], n_trials: int) -> Tuned:
    """TPE over a family; a configuration that the median of others beats after two folds is not finished."""

    def judge(trial: optuna.Trial) -> float:
        model = _SPACES[family](trial)
        errors: list[float] = []
        for fold, table in enumerate(tables):
            errors.append(_error(model(0), table, y, fold_of == fold))
            trial.report(statistics.fmean(errors), fold)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("folds", errors)
        return statistics.fmean(errors)

    sampler = optuna.samplers.TPESampler(seed=0)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=10, n_warmup_steps=1)
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(judge, n_trials)
    fresh = _judged(family, study.best_params, y, fold_of, tables, FRESH)
    return Tuned(study.best_params, tuple(study.best_trial.user_attrs["folds"]), tuple(fresh))


def errors_of(
    data: TransferData, fold_of: np.ndarray, family: str, way: Computed, params: Mapping[str, Any], seeds: Sequence[int]
) -> list[float]:
    """Mean absolute error in each fold of trees with these settings, the mean of some seeds."""
    varied = data.x.std(axis=0) > 0
    tables = [_features(data, fold_of, fold, way, varied) for fold in range(int(fold_of.max()) + 1)]
    return _judged(family, params, data.y, fold_of, tables, seeds)


def _judged(
    family: str,
    params: Mapping[str, Any],
    y: np.ndarray,
    fold_of: np.ndarray,
    tables: Sequence[np.ndarray],
    seeds: Sequence[int],
) -> list[float]:
    model = _SPACES[family](optuna.trial.FixedTrial(dict(params)))
    return [
        statistics.fmean(_error(_grown(model(seed)), table, y, fold_of == fold) for seed in seeds)
        for fold, table in enumerate(tables)
    ]


def _grown(model: Any) -> Any:
    """A forest with all its trees."""
    is_forest = isinstance(model, RandomForestRegressor | ExtraTreesRegressor)
    return model.set_params(n_estimators=TREES[1]) if is_forest else model


def _error(model: Any, table: np.ndarray, y: np.ndarray, test: np.ndarray) -> float:
    model.fit(table[~test], y[~test])
    return float(np.abs(model.predict(table[test]) - y[test]).mean())


def _forest(trial: optuna.trial.BaseTrial) -> Callable[[int], Any]:
    kind = trial.suggest_categorical("kind", ["random", "extra"])
    settings = {
        "n_estimators": TREES[0],
        "max_features": trial.suggest_float("max_features", 0.03, 0.4, log=True),
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 10, log=True),
        "max_depth": trial.suggest_categorical("max_depth", [None, 6, 10, 16]),
        "criterion": "squared_error",
    }
    made = RandomForestRegressor if kind == "random" else ExtraTreesRegressor
    return lambda seed: made(random_state=seed, **settings)


def _boosted(trial: optuna.trial.BaseTrial) -> Callable[[int], Any]:
    kind = trial.suggest_categorical("kind", ["histogram", "exact"])
    loss = trial.suggest_categorical("loss", ["squared_error", "absolute_error"])
    rate = trial.suggest_float("learning_rate", 0.02, 0.2, log=True)
    count = trial.suggest_int("n_trees", 50, 150)
    leaves = trial.suggest_int("leaves", 4, 24, log=True)
    share = trial.suggest_float("max_features", 0.03, 0.4, log=True)
    least = trial.suggest_int("min_samples_leaf", 2, 30, log=True)
    same: dict[str, Any] = {"loss": loss, "learning_rate": rate, "max_features": share, "min_samples_leaf": least}
    if kind == "exact":
        return lambda seed: GradientBoostingRegressor(
            n_estimators=count, max_leaf_nodes=leaves, max_depth=None, subsample=0.7, random_state=seed, **same
        )
    return lambda seed: HistGradientBoostingRegressor(
        max_iter=count, max_leaf_nodes=leaves, early_stopping=False, random_state=seed, **same
    )


_SPACES: Mapping[str, Callable[[optuna.trial.BaseTrial], Callable[[int], Any]]] = {
    "forest": _forest,
    "boosted": _boosted,
}


def _features(data: TransferData, fold_of: np.ndarray, fold: int, way: Computed, varied: np.ndarray) -> np.ndarray:
    """What trees see where `fold` is tested, ``(m, d)``."""
    x = data.x[:, varied]
    if way == "none":
        return x
    if way == "value":
        return np.column_stack([x, _values(data)])
    return np.column_stack([x, _predictions(data, np.flatnonzero(fold_of == fold), varied)])


def _values(data: TransferData) -> np.ndarray:
    """The computed value of each measured pair, ``(m,)``: a mean where there are several, the median of all where there
    is none."""
    held: dict[str, list[float]] = {}
    for key, value in zip(data.stage1_keys, data.stage1_y.tolist(), strict=True):
        held.setdefault(key, []).append(value)
    typical = float(np.median(data.stage1_y))
    return np.array([statistics.fmean(held[key]) if key in held else typical for key in data.keys])


def _predictions(data: TransferData, test: np.ndarray, varied: np.ndarray, parts: int = 4) -> np.ndarray:
    """Predicted computed values, ``(m,)``: no pair's own value was seen by the model that predicts it."""
    tested = {data.keys[row] for row in test}
    pairs = sorted(set(data.stage1_keys) - tested)
    part = dict(zip(pairs, np.random.default_rng(0).permutation(len(pairs)) % parts, strict=True))
    theirs = np.array([part.get(key, -1) for key in data.stage1_keys])  # -1: pairs of the test fold, seen by no model
    ours = np.array([part.get(key, -1) for key in data.keys])
    predicted = np.empty(len(data.y))
    for left_out in range(-1, parts):
        rows = (theirs >= 0) & (theirs != left_out)
        model = ExtraTreesRegressor(100, max_features=0.3, random_state=0)
        model.fit(data.stage1_x[rows][:, varied], data.stage1_y[rows])
        if (ours == left_out).any():
            predicted[ours == left_out] = model.predict(data.x[ours == left_out][:, varied])
    return predicted


def _note(found: Tuned, way: Computed) -> str:
    folds = ", ".join(f"{error:.3f}" for error in found.fresh)
    return (
        f"{WAYS[way]}; best of {N_TRIALS} configurations on the same folds, then {len(FRESH)} fresh seeds; "
        f"by fold {folds}; as tuned {statistics.fmean(found.tuned):.4f}; {dict(found.params)}"
    )


def main() -> None:
    """Prints and writes the mean absolute errors."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    folder = common.data_folder() / "chi"
    if not folder.is_dir():
        raise SystemExit(f"no tables in {folder}; they are those of MTL_ChiParameter")
    data = chi_data(folder)
    found = opponents(data, data.fold_of(5, seed=0))
    common.write(
        "chi_forests",
        [
            common.result(
                f"chi_{family}_{way}",
                measured=round(statistics.fmean(best.fresh), 4),
                goal=None,
                unit="mean absolute error of measured chi",
                runs=N_TRIALS,
                note=_note(best, way),
            )
            for (family, way), best in found.items()
        ],
    )


if __name__ == "__main__":
    main()
