"""A space: what may be tried, what follows from it, what is fixed, and what is never trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.trial import Trial

from search_spaces.constraints import Constraint, Violation
from search_spaces.domains import Domain
from search_spaces.expressions import Expression
from tune_lora.errors import InputError, nearest

if TYPE_CHECKING:
    from search_spaces.lookahead import Lookahead

UNSET: Any = object()
"""No default; None is a value that a choice may have."""


@dataclass(frozen=True)
class Parameter:
    """One searched parameter. It exists only where `when` holds."""

    domain: Domain
    default: Any = UNSET
    when: Expression | None = None


@dataclass(frozen=True)
class Prior:
    """A reference configuration, which may lie outside the space. `run`: it is trained first."""

    name: str
    params: Mapping[str, Any]
    run: bool = True
    note: str = ""


@dataclass(frozen=True)
class Observation:
    """A past trial. With a `value` it is told to the sampler; without one it is shown in reports only."""

    name: str
    params: Mapping[str, Any]
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Space:
    """Domains + derived + fixed + constraints + priors + observations.

    `external` are names that rules may mention and that somebody else sets (the trainer's precision, say). `derived`
    stands in an order in which it can be computed. `stratify` are the parameters drawn first, so that rules do not thin
    out their values. `source` is the mapping it was read from.
    """

    name: str
    parameters: Mapping[str, Parameter]
    title: str = ""
    n_trials: int = 50
    derived: Mapping[str, Expression] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    external: Mapping[str, str] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    priors: tuple[Prior, ...] = ()
    observations: tuple[Observation, ...] = ()
    stratify: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def load(cls, what: str | Path | Mapping[str, Any], where: str = "space") -> Space:
        """A shipped space by name, a YAML file by path, or the mapping itself; `where` begins the place in messages.

        Raises:
            InputErrors: every mistake, each with its place.
        """
        from search_spaces import reading

        return reading.load(what, where)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str = "space") -> Space:
        """A space out of plain data. Raises InputErrors as `load` does."""
        from search_spaces import reading

        return reading.from_mapping(mapping, where)

    def preset(self, name: str) -> Space:
        """The space with a preset's ranges, and without the rules that the preset switches off."""
        from search_spaces import reading

        if name not in self.presets:
            raise InputError(f"preset: got {name!r}; {nearest(name, self.presets) or f'{self.name} has no presets'}")
        return reading.from_mapping(reading.with_preset(self.source, self.presets[name]), self.name)

    def with_fixed(self, values: Mapping[str, Any], *, instead_of: Collection[str] = ()) -> Space:
        """The space with values fixed: a fixed value is replaced, a parameter is pinned to its value, another name is
        added. The space's own fixed values of `instead_of` are left out.

        Raises:
            InputError: a value is derived, or no parameter is left.
        """
        from search_spaces import reading

        for name in values:
            if name in self.derived:
                raise InputError(f"fixed.{name}: is derived ({self.derived[name].text}); fix what it is derived from")
        if self.parameters.keys() <= values.keys():
            raise InputError(
                f"fixed: pins every parameter of the space ({', '.join(self.parameters)}), so that nothing is "
                "searched; must leave one out (fixed:, --set); one configuration is trained by `tune-lora train "
                "--config`"
            )
        return reading.from_mapping(reading.with_fixed(self.source, values, instead_of), self.name)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The order in which parameters are drawn: stratified ones, then those that most rules ask about; conditions
        first.
        """
        rules = {name: sum(name in self.needs(clause.names) for clause in self._clauses) for name in self.parameters}
        preferred = sorted(self.parameters, key=lambda name: (name not in self.stratify, -rules[name]))
        ordered: dict[str, None] = {}
        for name in preferred:
            self._place(name, ordered)
        return tuple(ordered)

    @cached_property
    def lookahead(self) -> Lookahead:
        """What knows which values still lead somewhere. It remembers what it found out, so it is made once."""
        from search_spaces.lookahead import Lookahead

        return Lookahead(self)

    def __getstate__(self) -> dict[str, Any]:
        # What the lookahead remembers is found out again faster than it is carried to another process.
        return {name: value for name, value in vars(self).items() if name != "lookahead"}

    def _place(self, name: str, ordered: dict[str, None]) -> None:
        when = self.parameters[name].when
        for condition in sorted(self.needs(when.names)) if when else ():
            if condition not in ordered:
                self._place(condition, ordered)
        ordered.setdefault(name)

    @cached_property
    def _clauses(self) -> tuple[Any, ...]:
        return tuple(clause for constraint in self.constraints for clause in constraint.clauses)

    def needs(self, names: frozenset[str]) -> frozenset[str]:
        """The parameters that variables depend on, through derived values."""
        found: set[str] = set()
        for name in names:
            if name in self.parameters:
                found.add(name)
            elif name in self.derived:
                found |= self.needs(self.derived[name].names)
        return frozenset(found)

    def exists(self, name: str, config: Mapping[str, Any]) -> bool:
        """Whether a parameter exists in a configuration: its `when` holds there."""
        when = self.parameters[name].when
        if when is None:
            return True
        return when.names <= config.keys() and bool(when(config))

    def resolve(self, params: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The whole configuration: fixed values, then `params`, then `overrides`, then what is derived from them.

        A derived value that is given is kept. One whose variables are not all known (a past trial of which little was
        noted) is left out.
        """
        config = {**self.fixed, **params, **(overrides or {})}
        for name, expression in self.derived.items():
            if name not in config and expression.names <= config.keys():
                config[name] = expression(config)
        return config

    def violations(self, config: Mapping[str, Any]) -> list[Violation]:
        """The rules that a resolved configuration breaks, each with every requirement that is missing."""
        checked = ((constraint, constraint.missing(config)) for constraint in self.constraints)
        return [Violation(constraint.name, constraint.reason, missing) for constraint, missing in checked if missing]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draws the parameters from an Optuna trial, in `order`; returns them in the order of the file."""
        drawn: dict[str, Any] = {}
        for name in self.order:
            if self.exists(name, self.resolve(drawn)):
                drawn[name] = self.parameters[name].domain.suggest(trial, name)
        return {name: drawn[name] for name in self.parameters if name in drawn}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each parameter."""
        return {name: parameter.domain.to_distribution() for name, parameter in self.parameters.items()}

    def within(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The part of `params` that lies in the space: what Optuna can store as parameters."""
        return {
            name: parameter.domain.snap(params[name])
            for name, parameter in self.parameters.items()
            if name in params and parameter.domain.contains(params[name])
        }

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """`params` with defaults for the parameters that are not given and have one."""
        given = dict(params)
        for name in self.order:
            parameter = self.parameters[name]
            if name not in given and parameter.default is not UNSET and self.exists(name, self.resolve(given)):
                given[name] = parameter.default
        return given

    def defaults(self) -> dict[str, Any]:
        """The default parameters: what trains when nothing is searched; only those that have a default."""
        return self.complete({})

    def examples(self) -> Iterator[dict[str, Any]]:
        """Resolved configurations in which each value (or end) of each parameter occurs once. They may break rules."""
        first = {name: parameter.domain.points()[0] for name, parameter in self.parameters.items()}
        yield self.resolve(first)
        for name, parameter in self.parameters.items():
            for value in parameter.domain.points()[1:]:
                yield self.resolve(first | {name: value})
