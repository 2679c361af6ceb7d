"""What a study never trained, by the rule that stood in the way: draws of the sampler and reference configurations."""

from __future__ import annotations

from collections.abc import Mapping

import optuna

from tune_lora import store

REFERENCES = "refused_priors"
"""User attribute of the study: why each reference that breaks a rule was never trained."""


class Refusals:
    """Counts of refused draws, which go on where an earlier run of the study left them; and refused references."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._before: dict[str, int] = dict(study.user_attrs.get(store.REJECTIONS, {}))
        self._counts = dict(self._before)
        self._references: dict[str, str] = dict(study.user_attrs.get(REFERENCES, {}))

    @property
    def references(self) -> Mapping[str, str]:
        """Why each reference that breaks a rule is not trained, by its name."""
        return self._references

    def refuse(self, broken: Mapping[str, list[str]]) -> None:
        """References by name, each with the rules it breaks; one is counted once in a study."""
        new = {name: rules for name, rules in broken.items() if name not in self._references}
        for name, rules in new.items():
            self._references[name] = "; ".join(rules)
            rule = rules[0].partition(":")[0]
            self._before[rule] = self._before.get(rule, 0) + 1
        if new:
            self._study.set_user_attr(REFERENCES, self._references)
            self.count({})

    def count(self, draws: Mapping[str, int]) -> None:
        """Draws that the sampler refused since this run began, by rule."""
        counts = {name: self._before.get(name, 0) + draws.get(name, 0) for name in {**self._before, **draws}}
        if counts != self._counts:
            self._counts = counts
            self._study.set_user_attr(store.REJECTIONS, counts)
