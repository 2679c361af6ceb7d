"""One pass over a space's mapping: what is right becomes a Space, what is wrong is collected with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.constraints import Clause, Constraint
from search_spaces.domains import Domain
from search_spaces.expressions import Expression, ExpressionError, parse, unknown_names
from search_spaces.fields import Mistakes, read_default, read_domain
from search_spaces.space import UNSET, Observation, Parameter, Prior, Space

KEYS = (
    "name", "title", "n_trials", "parameters", "derived", "fixed", "external", "constraints", "presets", "priors",
    "observations",
    "stratify",
)  # fmt: skip


class Reader:
    """One pass over a mapping; what is wrong goes to `mistakes` and reading goes on."""

    def __init__(self, source: dict[str, Any], mistakes: Mistakes) -> None:
        self.source, self.mistakes = source, mistakes
        # Names of broken parameters are known as well, so that rules about them are not reported on top.
        sections = ("parameters", "derived", "fixed", "external")
        self._names = {str(name) for key in sections for name in _keys(source.get(key))}

    def space(self, default_name: str) -> Space:
        self.mistakes.unknown_keys("", self.source, KEYS)
        fixed, external = self._section("fixed"), self._section("external")
        parameters, derived = self._parameters(), self._derived()
        self._check_distinct(parameters, derived, fixed, external)
        self._check_conditions(parameters, fixed)
        constraints = self._constraints()
        space = Space(
            name=str(self.source.get("name", default_name)),
            title=str(self.source.get("title", "")),
            n_trials=self._n_trials(),
            parameters=parameters,
            derived=derived,
            fixed=fixed,
            external=external,
            constraints=constraints,
            presets=self._presets(parameters, constraints),
            priors=self._priors(),
            observations=self._observations(),
            stratify=self._stratify(parameters),
            source=self.source,
        )
        if not self.mistakes:
            self._check_priors(space)
        return space

    def _section(self, key: str) -> dict[str, Any]:
        value = self.source.get(key) or {}
        if isinstance(value, Mapping):
            return {str(name): item for name, item in value.items()}
        self.mistakes.add(key, f"got {type(value).__name__}, must be a mapping from names to values")
        return {}

    def _items(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        """Named entries of a section that is a list of ``{name: ...}`` or a mapping by name, each with its place."""
        section = self.source.get(key) or []
        if isinstance(section, Mapping):
            section = [{"name": name, **(item if isinstance(item, Mapping) else {})} for name, item in section.items()]
        if not isinstance(section, Sequence) or isinstance(section, str):
            self.mistakes.add(key, f"got {type(section).__name__}, must be a list of entries with a name")
            return []
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for index, item in enumerate(section):
            if not isinstance(item, Mapping) or not item.get("name"):
                self.mistakes.add(f"{key}.{index}", "has no name; must be an entry with a name")
                continue
            name = str(item["name"])
            if name in found:
                self.mistakes.add(f"{key}.{name}", "duplicate name; must be given once")
            found[name] = (f"{key}.{name}", dict(item))
        return list(found.values())

    def _parameters(self) -> dict[str, Parameter]:
        section = self._section("parameters")
        if not section:
            self.mistakes.add("parameters", "got none, must hold at least one")
        found = {}
        for name, settings in section.items():
            place = f"parameters.{name}"
            domain = read_domain(place, settings, self.mistakes)
            when = self._expression(f"{place}.when", settings["when"]) if domain and "when" in settings else None
            if domain is not None:
                default = read_default(place, settings, domain, self.mistakes) if "default" in settings else UNSET
                found[name] = Parameter(domain, default, when)
        return found

    def _derived(self) -> dict[str, Expression]:
        section = self._section("derived")
        parsed = {name: self._expression(f"derived.{name}", text) for name, text in section.items()}
        waiting = {name: expression for name, expression in parsed.items() if expression is not None}
        ordered: dict[str, Expression] = {}
        while waiting:
            ready = [name for name, expression in waiting.items() if not expression.names & waiting.keys()]
            if not ready:
                self.mistakes.add("derived", f"{', '.join(waiting)} are derived from each other; must not go round")
                break
            ordered |= {name: waiting.pop(name) for name in ready}
        return ordered

    def _expression(self, place: str, text: Any) -> Expression | None:
        try:
            expression = parse(text)
        except ExpressionError as error:
            self.mistakes.add(place, str(error))
            return None
        unknown = unknown_names(expression, self._names)
        for line in unknown:
            self.mistakes.add(place, line)
        return None if unknown else expression

    def _check_distinct(self, *sections: Mapping[str, Any]) -> None:
        labels = ("parameters", "derived", "fixed", "external")
        seen: dict[str, str] = {}
        for label, section in zip(labels, sections, strict=True):
            for name in section:
                if name in seen:
                    self.mistakes.add(f"{label}.{name}", f"duplicate: also in {seen[name]}; must be in one of them")
                seen[name] = label

    def _check_conditions(self, parameters: Mapping[str, Parameter], fixed: Mapping[str, Any]) -> None:
        """`when` asks about parameters and fixed values, and never about itself, however indirectly."""
        for name, parameter in parameters.items():
            asked = parameter.when.names if parameter.when else frozenset()
            for other in sorted(asked - parameters.keys() - fixed.keys()):
                self.mistakes.add(
                    f"parameters.{name}.when", f"asks about {other!r}; must be a parameter or a fixed value"
                )
            reached, waiting = set[str](), list(asked)
            while waiting:
                other = waiting.pop()
                if other in parameters and other not in reached:
                    reached.add(other)
                    when = parameters[other].when
                    waiting.extend(when.names if when else ())
            if name in reached:
                self.mistakes.add(f"parameters.{name}.when", "depends on itself; must depend on other parameters")

    def _constraints(self) -> tuple[Constraint, ...]:
        found = []
        for place, item in self._items("constraints"):
            self.mistakes.unknown_keys(place, item, ("name", "rule", "when", "require", "reason"))
            if not item.get("reason"):
                self.mistakes.add(f"{place}.reason", "is missing; must say why, it is shown with every refusal")
            clauses = self._clauses(place, item)
            if clauses:
                found.append(Constraint(item["name"], str(item.get("reason", "")), clauses))
        return tuple(found)

    def _clauses(self, place: str, item: Mapping[str, Any]) -> tuple[Clause, ...]:
        if ("rule" in item) == ("require" in item):
            self.mistakes.add(place, "must have either `rule`, or `when` and `require`")
            return ()
        when = self._expression(f"{place}.when", item["when"]) if "when" in item else None
        if "rule" in item:
            required = {f"{place}.rule": item["rule"]}
        else:
            listed = item["require"] if isinstance(item["require"], list) else [item["require"]]
            required = {f"{place}.require.{index}": text for index, text in enumerate(listed)}
        parsed = [self._expression(at, text) for at, text in required.items()]
        return tuple(Clause(when, expression) for expression in parsed if expression is not None)

    def _presets(
        self, parameters: Mapping[str, Parameter], rules: Sequence[Constraint]
    ) -> dict[str, Mapping[str, Any]]:
        found = self._section("presets")
        for name, preset in found.items():
            place = f"presets.{name}"
            if not isinstance(preset, Mapping):
                self.mistakes.add(place, f"got {type(preset).__name__}, must be a mapping with parameters or without")
                continue
            self.mistakes.unknown_keys(place, preset, ("parameters", "without"))
            for parameter in preset.get("parameters", {}):
                self.mistakes.unknown_name(f"{place}.parameters", parameter, "parameter", parameters)
            for rule in preset.get("without", ()):
                self.mistakes.unknown_name(f"{place}.without", rule, "constraint", {rule.name for rule in rules})
        return found

    def _priors(self) -> tuple[Prior, ...]:
        found = []
        for place, item in self._items("priors"):
            self.mistakes.unknown_keys(place, item, ("name", "params", "run", "note"))
            found.append(
                Prior(item["name"], self._params(place, item), bool(item.get("run", True)), str(item.get("note", "")))
            )
        return tuple(found)

    def _observations(self) -> tuple[Observation, ...]:
        found = []
        for place, item in self._items("observations"):
            self.mistakes.unknown_keys(place, item, ("name", "params", "value", "note"))
            value = item.get("value")
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                self.mistakes.add(
                    f"{place}.value", f"got {value!r}, must be a number, or left out where none was recorded"
                )
                continue
            found.append(Observation(item["name"], self._params(place, item), value, str(item.get("note", ""))))
        return tuple(found)

    def _params(self, place: str, item: Mapping[str, Any]) -> Mapping[str, Any]:
        params = item.get("params")
        if not isinstance(params, Mapping) or not params:
            self.mistakes.add(f"{place}.params", "is missing; must be a mapping from parameters to values")
            return {}
        for name in params:
            self.mistakes.unknown_name(f"{place}.params", name, "parameter", self._names)
        return dict(params)

    def _check_priors(self, space: Space) -> None:
        """A prior sets every parameter that has no default, and no derived value that contradicts what it is derived
        from.
        """
        for prior in space.priors:
            place, config = f"priors.{prior.name}.params", space.complete(prior.params)
            resolved = space.resolve(config)
            for name in space.parameters:
                if name not in config and space.exists(name, resolved):
                    self.mistakes.add(place, f"{name} is not set and has no default; must be set")
            for name, made in space.derived.items():
                if name in config and made.names <= config.keys() and made(config) != config[name]:
                    self.mistakes.add(
                        f"{place}.{name}", f"got {config[name]}, but {made.text} is {made(config)}; leave it out"
                    )

    def _n_trials(self) -> int:
        value = self.source.get("n_trials", 50)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.mistakes.add("n_trials", f"got {value!r}, must be a whole number from 1")
            return 1
        return value

    def _stratify(self, parameters: Mapping[str, Domain | Parameter]) -> tuple[str, ...]:
        names = self.source.get("stratify") or []
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list):
            self.mistakes.add("stratify", f"got {names!r}, must be a list of parameters")
            return ()
        for name in names:
            self.mistakes.unknown_name("stratify", name, "parameter", parameters)
        return tuple(names)


def _keys(section: Any) -> list[Any]:
    return list(section) if isinstance(section, Mapping) else []
