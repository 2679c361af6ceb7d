"""Samplers by name, each keeping the rules of a space."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from search_spaces.bounded import BoundedGP, SharedSpace
from search_spaces.grid import GridOfSpace
from search_spaces.masked_tpe import MaskedTPE
from search_spaces.points import coordinates
from search_spaces.predictive import Horizon, PredictiveSampler
from search_spaces.predictive.past import Past
from search_spaces.sampler import FeasibleSampler, Repair
from search_spaces.space import Space
from search_spaces.thinning import Ranked
from tune_lora.errors import InputError, nearest

__all__ = ["AUTO", "SAMPLERS", "Choice", "FeasibleSampler", "SamplerKind", "choose", "feasible_sampler", "sampler_name"]


@dataclass(frozen=True)
class SamplerKind:
    """One named sampler. `build` makes it from (space, seed, n_startup_trials), with `predicts` from the horizon of
    trials as well.

    `also` are Optuna's class names, which are understood as well. With `reseed` it is built anew for each trial, which
    makes a continued study draw what an uninterrupted one would have: for samplers that hold nothing but a seed.
    `past` makes what these samplers share of what they know of a study; `build` takes it by that name.
    `needs` is a package that Optuna imports only when it draws.
    """

    build: Callable[..., BaseSampler]
    also: tuple[str, ...]
    reseed: bool = True
    needs: str | None = None
    repair: Repair = "nearest"
    predicts: bool = False
    past: Callable[[Space, Horizon | None], Any] | None = None


def _tpe(_: Space, seed: int, n_startup_trials: int, past: Ranked) -> BaseSampler:
    # Univariate: every value is drawn given those before it, which is where rules are kept. Under a scheduler a bad
    # guess is cheap: a heavier prior explores more, and without the magic clip the densities follow the best trials
    # closely. The best often lies at an end of a range. Measured (docs/LOG.md): regret .168 against .204 of defaults.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # these settings go in Optuna 6; pyproject.toml stays below it
        return MaskedTPE(
            seed=seed,
            n_startup_trials=n_startup_trials,
            multivariate=False,
            consider_endpoints=True,
            consider_magic_clip=False,
            prior_weight=4.0,
            n_ei_candidates=100,
            past=past,
        )


def _cmaes(_: Space, seed: int, n_startup_trials: int, past: SharedSpace) -> BaseSampler:
    # It knows no choices; they are drawn uniformly, which is no reason for a warning each.
    sampler = optuna.samplers.CmaEsSampler(
        seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False
    )
    sampler._search_space = past
    return sampler


def _gp(_: Space, seed: int, n_startup_trials: int) -> BaseSampler:
    return BoundedGP(seed=seed, n_startup_trials=n_startup_trials, warn_independent_sampling=False)


def _nsgaii(_: Space, seed: int, n_startup_trials: int, past: SharedSpace) -> BaseSampler:
    # Its first generation is drawn uniformly, as the start-up of other samplers is. Optuna's 50 would be a whole study.
    sampler = optuna.samplers.NSGAIISampler(population_size=max(2, n_startup_trials), seed=seed)
    sampler._search_space = past
    return sampler


def _qmc(_: Space, seed: int, __: int) -> BaseSampler:
    with warnings.catch_warnings():  # that its interface may change is for this file to mind, not for its user
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.QMCSampler(
            seed=seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )


SAMPLERS: dict[str, SamplerKind] = {
    "predictive": SamplerKind(PredictiveSampler, (), predicts=True, past=Past),
    "tpe": SamplerKind(_tpe, ("TPESampler",), past=lambda *_: Ranked()),
    "random": SamplerKind(lambda _, seed, __: optuna.samplers.RandomSampler(seed), ("RandomSampler",)),
    "cmaes": SamplerKind(_cmaes, ("CmaEsSampler",), needs="cmaes", past=lambda *_: SharedSpace()),
    "gp": SamplerKind(_gp, ("GPSampler",), reseed=False, needs="torch"),
    "nsgaii": SamplerKind(_nsgaii, ("NSGAIISampler",), past=lambda *_: SharedSpace()),
    "qmc": SamplerKind(_qmc, ("QMCSampler",), reseed=False, repair="rescaled"),
    "grid": SamplerKind(
        lambda space, seed, _: GridOfSpace(space, seed), ("GridSampler", "BruteForceSampler"), reseed=False
    ),
}
"""Samplers by the name that a study file gives them; one that is added here is understood everywhere."""

AUTO = "auto"
MOST_COORDINATES = 40
"""Above, tens of trials say too little about which of them matter for a process that has a length scale for each."""


@dataclass(frozen=True)
class Choice:
    """The sampler that a name stands for, and why in words: empty where it was named."""

    name: str
    why: str = ""


def choose(name: str, space: Space, objectives: int = 1) -> Choice:
    """What a study's sampler is: ``auto`` is decided by the space and the number of objectives.

    Raises:
        InputError: there is none of that name.
    """
    short = sampler_name(name)
    if short != AUTO:
        return Choice(short)
    d = len(coordinates(space))
    if objectives > 1:
        return Choice("tpe", f"tpe, since there are {objectives} objectives and predicting final scores is for one")
    if d > MOST_COORDINATES:
        return Choice("tpe", f"tpe, since {d} coordinates are more than the {MOST_COORDINATES} that predicting is for")
    return Choice("predictive", f"predictive (final scores, from learning curves), since {d} coordinates are few")


def sampler_name(name: str) -> str:
    """The short name of a sampler that was named in either way.

    Raises:
        InputError: there is none of that name.
    """
    known = {AUTO: AUTO, **{short: short for short in SAMPLERS}}
    known |= {long: short for short, kind in SAMPLERS.items() for long in kind.also}
    if name not in known:
        raise InputError(f"sampler: got {name!r}; {nearest(name, known)}")
    return known[name]


def feasible_sampler(
    space: Space,
    name: str = "tpe",
    *,
    seed: int = 0,
    n_startup_trials: int = 10,
    horizon: Horizon | None = None,
) -> FeasibleSampler:
    """A named sampler that keeps a space's rules.

    `horizon` gives a trial's longest budget from its parameters, for samplers that predict what it ends with.

    Raises:
        InputError: no such sampler, or a package that it needs is not installed.
    """
    short = choose(name, space).name
    kind = SAMPLERS[short]
    if kind.needs and find_spec(kind.needs) is None:
        raise InputError(
            f"sampler: {short} needs the package {kind.needs}, which is not installed (pip install {kind.needs})"
        )
    more: dict[str, Any] = {"horizon": horizon} if kind.predicts else {}
    if kind.past is not None:
        more["past"] = kind.past(space, horizon)
    return FeasibleSampler(
        space,
        lambda seed: kind.build(space, seed, n_startup_trials, **more),
        seed=seed,
        reseed=kind.reseed,
        n_startup_trials=n_startup_trials,
        repair=kind.repair,
    )
