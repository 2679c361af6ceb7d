"""One of several objectives as an Optuna study of its own, for what Optuna works out from a study."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState, create_trial


def alone(study: optuna.Study, objective: int) -> optuna.Study:
    """The trials of a study in memory, completed ones with their value of one objective."""
    single = optuna.create_study(direction=study.directions[objective], sampler=optuna.samplers.RandomSampler(seed=0))
    single.add_trials(
        create_trial(
            state=trial.state,
            value=trial.values[objective] if trial.state == TrialState.COMPLETE else None,
            params=trial.params,
            distributions=trial.distributions,
        )
        for trial in study.get_trials(deepcopy=False)
    )
    return single
