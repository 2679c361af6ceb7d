"""Every Optuna pruner behind one Tune scheduler: the real pruner, asked about a study in memory that mirrors the trials
it has seen.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna import pruners
from optuna.pruners import BasePruner
from optuna.trial import Trial, TrialState
from ray.tune.schedulers import TrialScheduler

from tune_lora.scheduler.deciding import Deciding
from tune_lora.scheduler.reports import Key, Seen
from tune_lora.store import Direction, TrialRecord

_MIRROR = "mirror"
"""Hyperband deals trials out to its brackets by the study's name and their numbers: both must outlive a driver."""
_WRITES_ON_TRIALS = (pruners.SuccessiveHalvingPruner, pruners.HyperbandPruner)


def pruner_of(name: str, settings: Mapping[str, Any], longest: int) -> BasePruner:
    """Optuna's pruner of a short name. `longest` is the longest budget of any trial, which Hyperband's brackets share
    out.
    """
    median = {name: settings[name] for name in ("n_startup_trials", "n_warmup_steps", "interval_steps", "n_min_trials")}
    made: dict[str, Callable[[], BasePruner]] = {
        "median": lambda: pruners.MedianPruner(**median),
        "percentile": lambda: pruners.PercentilePruner(settings["percentile"], **median),
        "hyperband": lambda: pruners.HyperbandPruner(
            settings["grace"], max(longest, settings["grace"]), int(settings["eta"])
        ),
        "successive_halving": lambda: pruners.SuccessiveHalvingPruner(settings["grace"], int(settings["eta"])),
        "patient": lambda: pruners.PatientPruner(
            pruners.MedianPruner(**median), settings["patience"], settings["min_delta"]
        ),
        "threshold": lambda: pruners.ThresholdPruner(
            settings["lower"], settings["upper"], settings["n_warmup_steps"], settings["interval_steps"]
        ),
        "wilcoxon": lambda: pruners.WilcoxonPruner(
            p_threshold=settings["p_threshold"], n_startup_steps=settings["n_startup_steps"]
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # nothing that a user could change
        return made[name]()


class OptunaPruner(Deciding):
    """A Tune scheduler that stops a trial when `make`'s pruner says so.

    Reports that break a constraint are not shown to the pruner: it knows no feasibility.

    `by_fold`: a report is a fold. Folds differ in how hard they are, and pruners compare a trial's mean or best so far
    with that of others over all their folds: where the first folds are easy, nobody would be stopped there. So steps
    are folds, and the pruner is shown by how much a fold is above or below the same fold of the best complete trial.
    """

    def __init__(
        self, make: Callable[[], BasePruner], direction: str, watch: str | None = None, *, by_fold: bool = False
    ) -> None:
        super().__init__(direction, watch)
        self._make, self._by_fold = make, by_fold
        self._best: Key | None = None
        self._curves: dict[Key, dict[int, float]] = {}
        self._ended: dict[Key, bool] = {}
        self._mirror = self._blank()

    def _blank(self) -> _Mirror:
        return _Mirror(self._make(), "maximize" if self.sign > 0 else "minimize")

    def _decide(self, trial: Any, key: Key, seen: Seen) -> str:  # noqa: ARG002  # of those that pause
        if seen.excess > 0 or not self._learn(key, seen):
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP if self._mirror.should_prune(key) else TrialScheduler.CONTINUE)

    def _learn(self, key: Key, seen: Seen) -> bool:
        """Whether a report is new; what a restarted trial reports again is not."""
        curve = self._curves.setdefault(key, {})
        if seen.value is None or seen.excess > 0 or key in self._ended or seen.budget in curve:
            return False
        curve[seen.budget] = seen.value
        step, shown = list(self._shown(curve).items())[-1]
        self._mirror.report(key, step, shown)
        return True

    def _shown(self, curve: Mapping[int, float]) -> dict[int, float]:
        """A curve as the pruner sees it: by budget, or by fold against the best trial's."""
        if not self._by_fold:
            return dict(sorted(curve.items()))
        against = self._folds(self._best) if self._best is not None else []
        folds = [curve[budget] for budget in sorted(curve)]
        return {
            fold: value - (against[fold - 1] if fold <= len(against) else 0.0)
            for fold, value in enumerate(folds, start=1)
        }

    def _folds(self, key: Key) -> list[float]:
        return [value for _, value in sorted(self._curves[key].items())]

    def _compare_with_the_best(self) -> None:
        """Shows everything anew where another trial has become the best."""
        done = [key for key, completed in self._ended.items() if completed and self._curves.get(key)]
        best = max(done, key=lambda key: self.sign * statistics.fmean(self._curves[key].values()), default=None)
        if best != self._best:
            self._best = best
            self._show_all()

    def _show_all(self) -> None:
        self._mirror = self._blank()
        for known, curve in self._curves.items():
            self._mirror.meet(known, self._shown(curve), self._ended.get(known))

    def _end(self, key: Key, seen: Seen) -> None:
        self._learn(key, seen)
        if key not in self._ended:
            self._ended[key] = seen.final
            self._mirror.tell(key, seen.final)
            if self._by_fold and seen.final:
                self._compare_with_the_best()

    def _forget(self, key: Key) -> None:
        if self._curves.pop(key, None) is None:
            return
        self._ended.pop(key, None)
        # What a pruner has written on a trial cannot be taken back, so the mirror is made anew without it.
        self._show_all()

    def replay(self, records: Iterable[TrialRecord]) -> None:
        """Takes in an earlier run of the study; in the order of its numbers, which pruners go by."""
        super().replay(sorted(records, key=lambda record: record.number))
        if self._by_fold:
            self._compare_with_the_best()

    def _take_in(self, record: TrialRecord) -> None:
        reports = [seen for seen in self._reports(record) if seen.excess == 0]
        curve = {seen.budget: seen.value for seen in reports if seen.value is not None}
        self._curves[record.number] = curve
        ended = {"complete": True, "pruned": False}.get(record.state)
        if ended is not None:
            self._ended[record.number] = ended
        self._mirror.meet(record.number, self._shown(curve), ended)

    def debug_string(self) -> str:
        """Which pruner decides, and how many trials it has seen."""
        return f"{self._mirror}, {len(self._curves)} trials seen"


class _Mirror:
    """An Optuna study in memory. Trials have the numbers they have in the real one."""

    def __init__(self, pruner: BasePruner, direction: Direction) -> None:
        self._study = optuna.create_study(
            study_name=_MIRROR, direction=direction, pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0)
        )
        self._trials: list[Trial] = []
        self._by_name: dict[str, Trial] = {}

    def __str__(self) -> str:
        return type(self._study.pruner).__name__

    def _trial(self, key: Key) -> Trial:
        if isinstance(key, str):
            return self._by_name.get(key) or self._by_name.setdefault(key, self._ask())
        while len(self._trials) <= key:  # a number that is never seen stays running, which no pruner looks at
            self._ask()
        return self._trials[key]

    def _ask(self) -> Trial:
        self._trials.append(self._study.ask())
        return self._trials[-1]

    def report(self, key: Key, budget: int, value: float) -> None:
        self._trial(key).report(value, budget)

    def should_prune(self, key: Key) -> bool:
        with warnings.catch_warnings():
            # Wilcoxon's pruner warns that folds which the best trial does not have are left out, at every report.
            warnings.filterwarnings("ignore", "WilcoxonPruner", UserWarning)
            return self._trial(key).should_prune()

    def tell(self, key: Key, completed: bool) -> None:
        """The trial ended. Wilcoxon's test is against the trial with the best mean, so that is its value."""
        trial = self._trial(key)
        values = list(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values.values())
        if completed and values:
            self._study.tell(trial, statistics.fmean(values))
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def meet(self, key: Key, curve: Mapping[int, float], completed: bool | None) -> None:
        """A trial that was decided on before: its reports, and how it ended (None: it runs)."""
        for budget, value in sorted(curve.items()):
            self.report(key, budget, value)
            if isinstance(self._study.pruner, _WRITES_ON_TRIALS):
                self.should_prune(key)  # for what it writes down; its answer was given long ago
        if completed is not None:
            self.tell(key, completed)
