"""How often the findings of a study claim what is not there, and how often they see what is.

Studies on `lora_v2_1` with the real samplers, which keep its rules; a third of the trials are pruned on an earlier,
noisier look. In *noise* the result has nothing to do with the configuration; in *planted* studies it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna

from benchmarks import common
from search_spaces.domains import Number
from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from trainables.protocol import Cause
from tune_lora.analysis import LEVEL, Evidence, course, edges, is_rate, winners
from tune_lora.records import StudyRecord, TrialRecord

STUDIES = {"random": 20, "tpe": 5} if common.QUICK else {"random": 300, "tpe": 60}
PLANTED = 5 if common.QUICK else 20
TRIALS = 40
HORIZON = 12
PRUNED = 1 / 3
"""Share of trials that are pruned, once there are five to compare with."""
SPACE = Space.load("lora_v2_1")
HIT = 0.25
"""Standard deviation of the noise beside a planted effect, whose own standard deviation is between 0.3 and 0.4."""

Truth = Callable[[Mapping[str, float]], float]
"""The true result of a configuration, from the place of each number in its range, -1 to 1."""


def noise(_: Mapping[str, float]) -> float:
    """Nothing matters."""
    return 0.0


def bowl(at: Mapping[str, float]) -> float:
    """The learning rate matters, best in the middle."""
    return at["learning_rate"] ** 2


def slope(at: Mapping[str, float]) -> float:
    """The learning rate matters, the better the higher."""
    return -0.6 * at["learning_rate"]


def valley(at: Mapping[str, float]) -> float:
    """Learning rate and ratio matter together only."""
    return at["learning_rate"] * at["network_alpha_ratio"]


def study(
    truth: Truth, *, sampler: str = "random", seed: int = 0, trials: int = TRIALS, sd: float = HIT
) -> StudyRecord:
    """A finished study of `trials` trials of a made-up trainer whose result is `truth` and noise of `sd`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw = np.random.default_rng(seed)
    drawing = feasible_sampler(SPACE, sampler, seed=seed, n_startup_trials=10)
    search = optuna.create_study(storage=optuna.storages.InMemoryStorage(), sampler=drawing)
    found: list[TrialRecord] = []
    for number in range(trials):
        trial = search.ask()
        params = SPACE.suggest(trial)
        value = truth(places(params)) + sd * float(draw.normal())
        early = value + sd * float(draw.normal())
        seen = [one.curve[HORIZON // 2] for one in found]
        is_pruned = len(seen) >= 5 and early > float(np.quantile(seen, 1 - PRUNED))
        found.append(_record(number, params, None if is_pruned else value, early))
        search.tell(trial, None if is_pruned else value, optuna.trial.TrialState.PRUNED if is_pruned else None)
    spec = {"space": "lora_v2_1", "search": {"sampler": sampler}}
    return StudyRecord("made-up", "minimize", tuple(found), spec=spec)


def places(params: Mapping[str, Any]) -> dict[str, float]:
    """Where each number lies in its range, -1 to 1."""
    domains = {name: one.domain for name, one in SPACE.parameters.items()}
    return {
        name: 2 * domain.position(params[name]) - 1 for name, domain in domains.items() if isinstance(domain, Number)
    }


def _record(number: int, params: Mapping[str, Any], value: float | None, early: float) -> TrialRecord:
    curve = {HORIZON // 2: early} | ({} if value is None else {HORIZON: value})
    return TrialRecord(
        number=number,
        state="pruned" if value is None else "complete",
        value=value,
        params=dict(params),
        config=SPACE.resolve(params),
        cause=Cause.PRUNED if value is None else None,
        metrics={"score": early if value is None else value},
        curve=curve,
        history={budget: {"score": score} for budget, score in curve.items()},
        seconds=60.0 * max(curve),
    )


def claims(record: StudyRecord) -> dict[str, bool]:
    """What the findings of a study claim, by the kind of claim. Not asked for shares of variance, which claim nothing
    and take most of the time."""
    evidence = Evidence(record)
    said = {one.key for part in (course, winners) for one in part(evidence)}
    return {
        "importance": bool(evidence.effects),
        "learning_rate": any(is_rate(one.name) for one in evidence.effects),
        "interaction": bool(evidence.interactions),
        "edge": any(one.is_hit for one in edges(evidence)),
        "learns": "learns" in said,
        "top_together": "top_together" in said,
        "jumps": "jumps" in said,
    }


def shares(truth: Truth, sampler: str, studies: int) -> dict[str, float]:
    """In which share of studies each claim is made."""
    made = [claims(study(truth, sampler=sampler, seed=seed)) for seed in range(studies)]
    return {claim: sum(one[claim] for one in made) / len(made) for claim in made[0]}


def _figure(name: str, measured: float, goal: str | None, note: str, runs: int) -> dict[str, Any]:
    error = math.sqrt(measured * (1 - measured) / runs)
    note = f"{note}; standard error {error:.3f}; {TRIALS} trials each, a third pruned"
    return common.result(name, measured=round(measured, 3), goal=goal, unit="share of studies", runs=runs, note=note)


def _false(sampler: str) -> list[dict[str, Any]]:
    """Claims about results that nothing decides."""
    runs, allowed = STUDIES[sampler], "<= 0.11"  # the level of 0.05, and two standard errors of 60 studies
    made = shares(noise, sampler, runs)
    nothing = f"sampler {sampler}, results that nothing decides"
    others = ", ".join(f"{claim} {made[claim]:.3f}" for claim in ("learning_rate", "learns", "top_together", "jumps"))
    return [
        _figure(
            f"findings_false_importance_{sampler}",
            made["importance"],
            allowed,
            f"{nothing}: a hyperparameter is said to matter (level {LEVEL}); other claims: {others}",
            runs,
        ),
        _figure(
            f"findings_false_interaction_{sampler}",
            made["interaction"],
            allowed,
            f"{nothing}: an interaction is claimed (level {LEVEL})",
            runs,
        ),
        _figure(f"findings_false_edge_{sampler}", made["edge"], allowed, f"{nothing}: an edge is said to be hit", runs),
    ]


def _seen(sampler: str) -> list[dict[str, Any]]:
    """Claims about what was planted."""
    rate, edge = shares(bowl, sampler, PLANTED), shares(slope, sampler, PLANTED)
    middle = f"sampler {sampler}, the learning rate decides, best in the middle: it is said to matter"
    end = f"sampler {sampler}, the higher the learning rate the better: its edge is said to be hit"
    return [
        _figure(f"findings_sees_rate_{sampler}", rate["learning_rate"], ">= 0.8", middle, PLANTED),
        _figure(f"findings_sees_edge_{sampler}", edge["edge"], None, end, PLANTED),
    ]


def main() -> None:
    found = [figure for sampler in STUDIES for figure in (*_false(sampler), *_seen(sampler))]
    together = shares(valley, "random", PLANTED)["interaction"]
    note = "sampler random, learning rate and ratio matter together only: an interaction is claimed"
    found.append(_figure("findings_sees_interaction", together, None, note, PLANTED))
    common.write("findings_hold", found)


if __name__ == "__main__":
    main()
