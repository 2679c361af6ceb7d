"""How often `verify` recommends the trial that truly is the best of its study, beside the search's own leader.

The same studies as in `benchmarks.verify_coverage`, where noise is as large as the range of the true top five; and
once where it is as large as their standard deviation, which is less noise. The ratio of the two rates is paired: both
choose in the same studies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import common
from benchmarks.verify_coverage import NOISES, Example, Spread, example, full_range

REPEATS = 20 if common.QUICK else 300
RESAMPLES = 4_000
SHAPES = ("normal", "normal, unequal by candidate", "heavy tails", "skewed")

Hits = np.ndarray
"""``(studies, 3)``: whether the search's leader, the best mean of the new values and the recommended one are best."""


def hits(one: Example) -> tuple[bool, bool, bool]:
    """Which of the three picks is the true best of the whole study."""
    leader, by_mean = int(one.leaders[0]), int(one.leaders[one.measured.mean(axis=1).argmin()])
    return leader == one.best, by_mean == one.best, one.verdict.trial == one.best


def deviation(top: np.ndarray) -> float:
    """The standard deviation of the true top five."""
    return float(top.std(ddof=1))


def interval(found: Hits, of: str, seed: int = 0) -> str:
    """The 90% bootstrap interval, over studies, of a rate or of the ratio."""
    rows = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
    rates = found[rows].mean(axis=1)
    drawn = {
        "leader": rates[:, 0],
        "recommended": rates[:, 2],
        "ratio": rates[:, 2] / np.maximum(rates[:, 0], 1 / len(found)),
    }[of]
    low, high = np.quantile(drawn, [0.05, 0.95])
    return f"{low:.2f} to {high:.2f}"


def ratio(found: Hits) -> float:
    """How many times as often the recommended one is the best."""
    leader, _, recommended = found.mean(axis=0)
    return float(recommended / leader)


def told(found: Hits, name: str) -> str:
    """The rates in words."""
    leader, by_mean, recommended = found.mean(axis=0)
    return (
        f"{name}: the search's leader is the best in {leader:.3f} ({interval(found, 'leader')}), the recommended one "
        f"in {recommended:.3f} ({interval(found, 'recommended')}), the best mean of the new values alone in "
        f"{by_mean:.3f}; ratio {ratio(found):.2f} ({interval(found, 'ratio')})"
    )


def figure(name: str, by_shape: dict[str, Hits], goal: str | None, unit: str) -> dict[str, object]:
    """The ratio over all shapes, with each of them in the note."""
    together = np.concatenate(list(by_shape.values()))
    note = ". ".join(
        ["with 90% intervals", told(together, "All"), *(told(one, name) for name, one in by_shape.items())]
    )
    return common.result(name, measured=round(ratio(together), 3), goal=goal, unit=unit, runs=len(together), note=note)


def measured(shapes: Sequence[str], spread: Spread = full_range) -> dict[str, Hits]:
    """The picks in studies of each shape of noise."""
    found = {}
    for name in shapes:
        found[name] = np.array([hits(example(NOISES[name], seed, spread)) for seed in range(REPEATS)])
        print(told(found[name], name), flush=True)
    return found


def main() -> None:
    as_range = measured(SHAPES)
    as_deviation = measured(SHAPES[:1], spread=deviation)
    unit = "times as often as the search's leader"
    common.write(
        "verify_picks_best",
        [
            figure("verify_picks_best", as_range, ">= 1.5", f"{unit}; noise as large as the range of the top five"),
            figure(
                "verify_picks_best_little_noise", as_deviation, None,
                f"{unit}; noise as large as the standard deviation of the top five",
            ),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
