"""What a study says about itself, in words and numbers: pure functions of its record.

`findings` are the signs of a good or a problematic run, each with what to do; `success_table` is what a study of image
LoRAs is held against; `importances`, `edges` and `gaps` are what the next study is made from.
"""

from __future__ import annotations

from tune_lora.analysis._course import course
from tune_lora.analysis._domains import is_number, is_rate
from tune_lora.analysis._edges import Edge, Gap, Outside, best_of, edges, gaps, outside
from tune_lora.analysis._endings import endings
from tune_lora.analysis._evidence import Evidence
from tune_lora.analysis._finding import KIND_WORDS, KINDS, Finding, Kind
from tune_lora.analysis._importance import Importance, importances
from tune_lora.analysis._parameters import parameters
from tune_lora.analysis._permutation import LEVEL, Effect
from tune_lora.analysis._success import Bin, Criterion, Distribution, SuccessTable, success_table
from tune_lora.analysis._tried import Tried, tried
from tune_lora.analysis._winners import winners
from tune_lora.records import StudyRecord

__all__ = [
    "KINDS",
    "KIND_WORDS",
    "LEVEL",
    "Bin",
    "Criterion",
    "Distribution",
    "Edge",
    "Effect",
    "Evidence",
    "Finding",
    "Gap",
    "Importance",
    "Kind",
    "Outside",
    "SuccessTable",
    "Tried",
    "best_of",
    "course",
    "edges",
    "findings",
    "gaps",
    "importances",
    "is_number",
    "is_rate",
    "outside",
    "success_table",
    "tried",
    "winners",
]


def findings(record: StudyRecord) -> tuple[Finding, ...]:
    """The signs that hold of a study, warnings first, then good signs, then what is worth knowing.

    What is claimed of a hyperparameter (it matters, failures share it, the best crowd at its edge, two act together) is
    claimed where a permutation test tells it from chance at `LEVEL`, corrected for the number of hyperparameters; where
    trials are too few, that is said instead. A second or two for hundreds of trials.
    """
    evidence = Evidence(record)
    found = [one for part in (endings, course, winners, parameters) for one in part(evidence)]
    return tuple(sorted(found, key=lambda one: KINDS.index(one.kind)))
