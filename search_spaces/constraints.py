"""Rules of a space: what is never trained, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.expressions import Expression


@dataclass(frozen=True)
class Clause:
    """The smallest thing that can be broken: where `when` holds, `must` has to hold."""

    when: Expression | None
    must: Expression

    @property
    def names(self) -> frozenset[str]:
        """All variables it reads."""
        return self.must.names | (self.when.names if self.when else frozenset())

    @property
    def constants(self) -> frozenset[float]:
        """All numbers it mentions: where it may change its mind."""
        return self.must.constants | (self.when.constants if self.when else frozenset())

    def broken(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration breaks it.

        A configuration that lacks a variable of `when` is not what the clause speaks of; one that lacks a variable of
        `must` does not show that it holds. A clause without `when` speaks only of configurations that have all its
        variables.
        """
        if self.when is None:
            return self.must.names <= config.keys() and not self.must(config)
        if not self.when.names <= config.keys() or not self.when(config):
            return False
        return not (self.must.names <= config.keys() and self.must(config))


@dataclass(frozen=True)
class Constraint:
    """A named rule with its reason; `clauses` are its requirements."""

    name: str
    reason: str
    clauses: tuple[Clause, ...]

    @property
    def names(self) -> frozenset[str]:
        """All variables it reads."""
        return frozenset().union(*(clause.names for clause in self.clauses))

    def missing(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Every requirement that a configuration does not meet, as written in the space."""
        return tuple(clause.must.text for clause in self.clauses if clause.broken(config))

    def excess(self, config: Mapping[str, Any]) -> float:
        """Number of requirements that are not met; 0 is feasible (the sign of Optuna's constraints)."""
        return float(len(self.missing(config)))


@dataclass(frozen=True)
class Violation:
    """A rule that a configuration breaks. `missing` are the requirements it does not meet."""

    name: str
    reason: str
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.reason} (needs {'; '.join(self.missing)})"
