"""What has been measured of a study's leaders so far: one file in its results, whole at any moment.

A measurement belongs to a trial as it was: its configuration and seed are kept beside it, and what was measured of a
trial that is no longer the same is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tune_lora import atomic
from tune_lora.errors import InputError
from tune_lora.records import TrialRecord

Kind = Literal["trained", "checkpoint", "retrained", "untrained"]
"""``trained`` is a training with a new seed, ``untrained`` a judgement of the base alone; the others are values of
`tune_lora.verification.Kind`."""
Pair = tuple[int, int]
"""A trial and a seed."""
BASE = -1
"""In place of a trial: the untrained base."""
NAME = "measured.json"


@dataclass(frozen=True)
class Measured:
    """A value, or in `failed` why there is none. `made` is the folder, in the results, of what was trained for it;
    `metrics` are all that were measured with it."""

    value: float | None = None
    failed: str = ""
    made: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Trainings that run as one study, named and kept so that the same ones go on after ctrl-C."""

    name: str
    pairs: tuple[Pair, ...]


class Ledger:
    """Measurements by kind, trial and seed; each `note` writes the file anew.

    Raises:
        InputError: the file is there and cannot be read.
    """

    def __init__(self, folder: Path, trials: Iterable[TrialRecord]) -> None:
        self.path, self._trials = folder / NAME, {trial.number: digest(trial) for trial in trials}
        kept = _read(self.path)
        self._of: dict[str, str] = dict(kept.get("trials", {}))
        self._known: dict[tuple[str, int, int], Measured] = {
            (kind, int(number), int(seed)): Measured(**one)
            for kind, by_trial in kept.get("measured", {}).items()
            for number, by_seed in by_trial.items()
            if self._of.get(number) == self._trials.get(int(number))
            for seed, one in by_seed.items()
        }
        self._passing: set[tuple[str, int, int]] = set()
        self.batches = [
            Batch(one["name"], tuple((int(number), int(seed)) for number, seed in one["pairs"]))
            for one in kept.get("batches", ())
        ]

    def get(self, kind: Kind, pair: Pair) -> Measured | None:
        """What is known of a pair."""
        return self._known.get((kind, *pair))

    def note(self, kind: Kind, pair: Pair, found: Measured, *, kept: bool = True) -> None:
        """Knows a measurement from now on; one that is not kept is asked for again by the next `verify`."""
        self._known[(kind, *pair)] = found
        if kept:
            self._write()
        else:
            self._passing.add((kind, *pair))

    def begin(self, prefix: str, pairs: Sequence[Pair]) -> Batch:
        """Keeps what is to be trained together, under a name that no batch has."""
        batch = Batch(f"{prefix}-{len(self.batches) + 1}", tuple(pairs))
        self.batches.append(batch)
        self._write()
        return batch

    def seeds(self, kind: Kind, trials: Sequence[int]) -> set[int]:
        """The seeds that are measured, or have failed, for every one of the trials."""
        found = [{seed for what, number, seed in self._known if (what, number) == (kind, trial)} for trial in trials]
        return set.intersection(*found) if found else set()

    def _write(self) -> None:
        measured: dict[str, dict[str, dict[str, Any]]] = {}
        for (kind, number, seed), one in sorted(self._known.items()):
            if (kind, number, seed) in self._passing:
                continue
            measured.setdefault(kind, {}).setdefault(str(number), {})[str(seed)] = asdict(one)
        trials = {str(number): self._trials[number] for _, number, _ in self._known if number in self._trials}
        content = {
            "trials": trials,
            "batches": [{"name": batch.name, "pairs": batch.pairs} for batch in self.batches],
            "measured": measured,
        }
        atomic.write_text(self.path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def digest(trial: TrialRecord) -> str:
    """What a trial was: of its configuration and seed."""
    text = json.dumps([dict(trial.config), trial.seed], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); must be as `verify` wrote it, or be removed") from None
    if not isinstance(kept, dict):
        raise InputError(f"{path}: holds {type(kept).__name__}; must be as `verify` wrote it, or be removed")
    return kept
