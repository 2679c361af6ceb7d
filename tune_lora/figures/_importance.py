"""Which hyperparameters mattered: fANOVA over the completed trials, through Optuna."""

from __future__ import annotations

import random
from collections.abc import Sequence

import optuna
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from tune_lora.figures._axis import completed, param_axes, varying
from tune_lora.figures._canvas import BLUE, GREY, Missing, panels, short
from tune_lora.store import StudyRecord, TrialRecord

ENOUGH = 4
"""Completed trials below which shares of importance would be noise."""
MOST = 1_000
"""Completed trials that importance is computed from, where there are more."""
PER_PARAMETER = 10
"""Trials per hyperparameter from which the shares are more than a rough guide."""


def importances(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None = None) -> dict[str, float]:
    """Share of the scores' variance that each hyperparameter explains, the largest first.

    A conditional hyperparameter that fewer than `ENOUGH` completed trials share with the others is left out, and so is
    one that took a single value.

    Raises:
        Missing: too few completed trials, equal scores, or nothing that varied.
    """
    done = completed(record, ENOUGH)
    if len({trial.value for trial in done}) == 1:
        raise Missing(
            f"All {len(done)} completed trials have the same {record.score_name}, "
            "so no hyperparameter explains a difference."
        )
    names = _shared(varying(param_axes(record, study, params), record, done), done)
    if not names:
        raise Missing(f"No hyperparameter took two values in {ENOUGH} completed trials or more.")
    return get_param_importances(_bounded(study), evaluator=FanovaImportanceEvaluator(seed=0), params=names)


def _bounded(study: optuna.Study) -> optuna.Study:
    """The study, or one of `MOST` of its completed trials drawn evenly: fANOVA takes minutes on ten thousand, and its
    shares no longer change."""
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(done) <= MOST:
        return study
    part = optuna.create_study(direction=study.direction, storage=optuna.storages.InMemoryStorage())
    part.add_trials(random.Random(0).sample(done, MOST))
    return part


def most_important(record: StudyRecord, study: optuna.Study, names: Sequence[str], n: int) -> list[str]:
    """The `n` most important of `names`; the first ones where importance cannot be told."""
    try:
        found = list(importances(record, study, names))
    except Missing:
        found = []
    return [*found, *(name for name in names if name not in found)][:n]


def param_importances(record: StudyRecord, study: optuna.Study, params: Sequence[str] | None) -> Figure:
    """A bar for each hyperparameter."""
    shares = importances(record, study, params)
    figure, (axes,) = panels(8.0, 1.7 + 0.34 * len(shares))
    names = list(shares)[::-1]
    bars = axes.barh([short(name, 32) for name in names], [shares[name] for name in names], color=BLUE, height=0.62)
    axes.bar_label(bars, fmt="{:.2f}", padding=4)
    axes.set(title="Hyperparameter importance", xlim=(0, 1.12 * max([*shares.values(), 0.01])))
    axes.set_xlabel(_caption(record, len(shares)))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(GREY)
    return figure


def _caption(record: StudyRecord, n_params: int) -> str:
    n_trials = len(record.ranked())
    counted = f"{n_trials} completed trials" if n_trials <= MOST else f"{MOST} of {n_trials} completed trials"
    of = "the scores'" if record.score_name == "score" else f"{record.score_name}'s"
    caption = f"share of {of} variance explained (fANOVA, {counted})"
    if n_trials < PER_PARAMETER * n_params:
        caption += (
            f"\na rough guide: {PER_PARAMETER * n_params} trials or more would be firm for {n_params} hyperparameters"
        )
    return caption


def _shared(names: Sequence[str], done: Sequence[TrialRecord]) -> list[str]:
    # fANOVA looks only at trials that sampled all the names: those that most trials have come first, and one is taken
    # as long as enough trials with some spread remain.
    taken: list[str] = []
    pool = list(done)
    for name in sorted(names, key=lambda name: -sum(name in trial.params for trial in done)):
        rest = [trial for trial in pool if name in trial.params]
        if len(rest) >= max(ENOUGH, len(done) / 2) and _vary(rest, [*taken, name]):
            taken, pool = [*taken, name], rest
    return taken


def _vary(trials: Sequence[TrialRecord], names: Sequence[str]) -> bool:
    spread = len({trial.value for trial in trials}) > 1
    return spread and all(len({repr(trial.params[name]) for trial in trials}) > 1 for name in names)
