"""Whether every suggestion from lora_v2_1 keeps its rules, and whether safe high alpha ratios are really tried."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna

from benchmarks import common
from search_spaces import points
from search_spaces.feasible import feasible_sampler
from search_spaces.space import Space
from tune_lora.sampling import suggestions

SUGGESTIONS = 2000
STUDIES = 100
TRIALS = 20
HIGH = 0.75


def feasible_share(space: Space, n: int) -> float:
    """Share of suggestions that break no rule; half of them drawn after the sampler was told results."""
    return sum(not space.violations(config) for config in suggestions(space, n, seed=42)) / n


def high_ratio_counts(space: Space, studies: int, score: Callable[[np.random.Generator], float]) -> list[int]:
    """How many of a study's trials have a high ratio, for simulated studies whose results say nothing about it."""
    counts = []
    for seed in range(studies):
        study, scores = optuna.create_study(sampler=feasible_sampler(space, seed=seed)), np.random.default_rng(seed)
        high = 0
        for _ in range(TRIALS):
            trial = study.ask()
            high += space.suggest(trial)["network_alpha_ratio"] >= HIGH
            study.tell(trial, score(scores))
        counts.append(high)
    return counts


def milliseconds_a_point(space: Space, n: int) -> float:
    """Median time of one feasible configuration without a trial, after as many to warm up."""
    random, times = np.random.default_rng(0), []
    for _ in range(2 * n):
        began = time.perf_counter()
        points.draw(space, random)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[n:])


def share_of(name: str, how: str, counts: list[int]) -> dict[str, Any]:
    """The mean share of high ratios, with the fewest that a study had."""
    return common.result(
        name,
        measured=round(statistics.mean(counts) / TRIALS, 4),
        goal=">= 0.25",
        unit="share of trials",
        runs=len(counts),
        note=f"ratio 0.75 to 0.90 in {len(counts)} studies of {TRIALS} trials {how}; 4 of 14 are; "
        f"fewest in a study {min(counts)}, at the 5th percentile {np.quantile(counts, 0.05):.0f}",
    )


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = Space.load("lora_v2_1")
    n, studies = (200, 10) if common.QUICK else (SUGGESTIONS, STUDIES)
    common.write(
        "search_space",
        [
            common.result(
                "feasible_share",
                measured=feasible_share(space, n),
                goal=">= 1",
                unit="share of suggestions",
                runs=1,
                note=f"{n} from lora_v2_1 with TPE, half after results were told; of uniform draws 60% are feasible",
            ),
            share_of("high_ratio_share", "on a flat objective", high_ratio_counts(space, studies, lambda _: 1.0)),
            share_of(
                "high_ratio_share_told",
                "told random results",
                high_ratio_counts(space, studies, lambda random: float(random.uniform())),
            ),
            common.result(
                "feasible_point_ms",
                measured=round(milliseconds_a_point(space, n), 3),
                goal="<= 1",
                unit="ms",
                runs=n,
                note="one configuration of lora_v2_1 that keeps the rules, drawn without a trial",
            ),
        ],
    )


if __name__ == "__main__":
    main()
