"""Whether every suggestion from lora_v2_1 keeps its rules, and whether safe high alpha ratios are really tried."""

from __future__ import annotations

import optuna

from benchmarks import common
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


def high_ratio_share(space: Space, studies: int) -> float:
    """Share of trials at a high ratio, over simulated studies whose score is the same everywhere."""
    high = 0
    for seed in range(studies):
        study = optuna.create_study(sampler=feasible_sampler(space, seed=seed))
        for _ in range(TRIALS):
            trial = study.ask()
            high += space.suggest(trial)["network_alpha_ratio"] >= HIGH
            study.tell(trial, 1.0)
    return high / (studies * TRIALS)


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
            common.result(
                "high_ratio_share",
                measured=round(high_ratio_share(space, studies), 4),
                goal=">= 0.25",
                unit="share of trials",
                runs=studies,
                note=f"ratio 0.75 to 0.90 in {studies} studies of {TRIALS} trials on a flat objective; 4 of 14 are",
            ),
        ],
    )


if __name__ == "__main__":
    main()
