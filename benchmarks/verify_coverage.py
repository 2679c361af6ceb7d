"""Whether the intervals of `verify` hold what they promise: studies whose truth is known, their leaders chosen by luck.

A study is 40 trials of a bowl (the worth falls with the squared distance from the best configuration), each scored
once, in noise as large as the range of its five truly best. The five that *look* best are measured again with five
seeds: `tune_lora.verification.judge`, which is what `verify` calls. Noise has a part of the seed that all candidates
share (prompts), a part of the seed that each has for itself, and eight images; its shapes differ. Counted is how often
a 90% interval holds the true worth: of all five, and of the one that is recommended, which is chosen once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks import common
from tune_lora.records import TrialRecord
from tune_lora.verification import Verdict, judge

REPEATS = 20 if common.QUICK else 200
TRIALS, DIMENSIONS, TOP, SEEDS, IMAGES = 40, 3, 5, 5, 8
OF_IMAGES = 0.5
"""Share of a measurement's variance that is its images'; the rest is the candidate's own with that seed."""
RESAMPLES = 1_000

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Noise of unit variance."""
Spread = Callable[[np.ndarray], float]
"""How far the true top five lie apart."""


@dataclass(frozen=True)
class Noise:
    """A shape of noise. `unequal` is the spread of the candidates' noises by the logarithm, `shared` that of what a
    seed does to all, in units of the noise."""

    draw: Draw
    unequal: float = 0.0
    shared: float = 1.0


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(rng.standard_t(4, shape) / np.sqrt(2))


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray((rng.gamma(2.0, 1.0, shape) - 2) / np.sqrt(2))


NOISES = {
    "normal": Noise(normal),
    "normal, loud prompts": Noise(normal, shared=4.0),
    "normal, unequal by candidate": Noise(normal, unequal=0.5),
    "heavy tails": Noise(heavy),
    "skewed": Noise(skewed),
    "skewed, unequal by candidate": Noise(skewed, unequal=0.5),
}


@dataclass(frozen=True)
class Example:
    """A study with its truth: worths by trial (lower is better), the leaders by their scores, and what `verify` says of
    them. `measured` are values ``(leader, seed)``."""

    worths: np.ndarray
    leaders: np.ndarray
    measured: np.ndarray
    verdict: Verdict = field(compare=False)

    @property
    def best(self) -> int:
        """The trial that truly is the best of the study."""
        return int(self.worths.argmin())

    def covers(self) -> list[bool]:
        """Of each leader whether its interval holds its worth."""
        return [one.low <= self.worths[one.trial] <= one.high for one in self.verdict.candidates]

    def covers_recommended(self) -> bool:
        """The same of the one that is recommended."""
        one = self.verdict.winner
        assert one is not None
        return bool(one.low <= self.worths[one.trial] <= one.high)


def full_range(top: np.ndarray) -> float:
    """From the best to the last of the true top five."""
    return float(np.ptp(top))


def example(noise: Noise, seed: int, spread: Spread = full_range) -> Example:
    """A study in noise as large as the `spread` of its truly best five."""
    rng = np.random.default_rng(seed)
    worths = (rng.uniform(-1, 1, (TRIALS, DIMENSIONS)) ** 2).sum(axis=1)
    size = spread(np.sort(worths)[:TOP]) * np.exp(noise.unequal * rng.standard_normal(TRIALS))

    def measure(numbers: np.ndarray, times: int) -> np.ndarray:
        own = noise.draw(rng, (len(numbers), times)) * np.sqrt(1 - OF_IMAGES)
        images = noise.draw(rng, (len(numbers), times, IMAGES)).mean(axis=2) * np.sqrt(OF_IMAGES * IMAGES)
        shared = rng.standard_normal(times) * noise.shared * np.median(size)
        return np.asarray(worths[numbers][:, None] + shared + (own + images) * size[numbers][:, None])

    scores = measure(np.arange(TRIALS), 1)[:, 0]
    leaders = np.argsort(scores)[:TOP]
    measured = measure(leaders, SEEDS)
    records = [TrialRecord(int(one), "complete", float(scores[one]), {}, {}) for one in leaders]
    values = {int(one): dict(enumerate(row.tolist())) for one, row in zip(leaders, measured, strict=True)}
    return Example(worths, leaders, measured, judge("checkpoint", records, values, {}, range(SEEDS), "minimize"))


def percentile_bootstrap(one: Example, rng: np.random.Generator) -> list[bool]:
    """Whether the plain bootstrap of the seeds would have covered each: what these intervals are instead of."""
    rows = rng.integers(SEEDS, size=(RESAMPLES, SEEDS))
    low, high = np.quantile(one.measured[:, rows].mean(axis=2), [0.05, 0.95], axis=1)
    truth = one.worths[one.leaders]
    return [bool(inside) for inside in (low <= truth) & (truth <= high)]


def flattery(one: Example) -> float:
    """How much better than its worth the search's leader looked, in units of the top's range."""
    leader = one.verdict.candidates[0]
    return float((one.worths[leader.trial] - leader.searched) / np.ptp(np.sort(one.worths)[:TOP]))


def shares(lists: Sequence[Sequence[bool]]) -> float:
    """The share that is true."""
    return float(np.mean([value for values in lists for value in values]))


def main() -> None:
    rng = np.random.default_rng(0)
    all_five, recommended, bootstrap, lucky = {}, {}, {}, {}
    for name, noise in NOISES.items():
        studies = [example(noise, seed) for seed in range(REPEATS)]
        all_five[name] = shares([one.covers() for one in studies])
        recommended[name] = shares([[one.covers_recommended()] for one in studies])
        bootstrap[name] = shares([percentile_bootstrap(one, rng) for one in studies])
        lucky[name] = float(np.median([flattery(one) for one in studies]))
        print(name, all_five[name], recommended[name], bootstrap[name], lucky[name], flush=True)
    told = "; ".join(f"{name}: {all_five[name]:.3f}, recommended {recommended[name]:.3f}" for name in NOISES)
    plain = ", ".join(f"{share:.2f}" for share in bootstrap.values())
    note = (
        f"of 90% intervals, {REPEATS} studies for each of {len(NOISES)} shapes of noise ({told}). A plain percentile "
        f"bootstrap of the five seeds covers {plain}. The median leader of a search looked better than it is by "
        f"{', '.join(f'{share:.2f}' for share in lucky.values())} of the range of the true top five"
    )
    figures = [
        ("verify_coverage", min(all_five.values()), ">= 0.85", "lowest share of a shape, all five"),
        ("verify_coverage_highest", max(all_five.values()), "<= 0.95", "highest share of a shape, all five"),
        ("verify_coverage_recommended", min(recommended.values()), ">= 0.85", "lowest share, the recommended one"),
        ("verify_coverage_recommended_highest", max(recommended.values()), "<= 0.95", "highest share, the same"),
    ]
    common.write(
        "verify_coverage",
        [
            common.result(name, measured=round(share, 4), goal=goal, unit=unit, runs=REPEATS, note=note)
            for name, share, goal, unit in figures
        ],
    )


if __name__ == "__main__":
    main()
