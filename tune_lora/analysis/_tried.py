"""Which values of one hyperparameter were tried, by how their trials did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tune_lora import names
from tune_lora.analysis._evidence import Evidence, standing
from tune_lora.records import StudyRecord, TrialRecord


@dataclass(frozen=True)
class Tried:
    """One value and its trial."""

    value: Any
    trial: TrialRecord


def tried(record: StudyRecord, name: str) -> list[Tried]:
    """The values of a hyperparameter, those of the best trials first: completed ones by their result, then pruned ones
    by how far they came, then those that failed through their configuration.

    `name` may be short, or derived or fixed where no trial sampled it.

    Raises:
        InputError: no trial has it.
    """
    ended = Evidence(record).ended
    known = dict.fromkeys([*record.parameter_names, *(key for one in record.trials for key in one.config)])
    found = names.full(name, known, f"hyperparameter {name!r}")
    order = sorted(zip(standing(record, ended), ended, strict=True), key=lambda pair: (pair[0], pair[1].number))
    configs = [({**one.config, **one.params}, one) for _, one in order]
    return [Tried(config[found], one) for config, one in configs if found in config]
