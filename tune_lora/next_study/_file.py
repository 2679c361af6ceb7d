"""The next study as a file: what a person would write, with where it is from in comments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from tune_lora import spec as study_files
from tune_lora.spec import StudySpec

WIDTH = 116


def text(document: Mapping[str, Any], comments: Iterable[str]) -> str:
    """A study file with comments above it."""
    heading = "".join(f"# {line}\n" if line else "#\n" for comment in comments for line in _wrapped(comment))
    return heading + yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


class _Dumper(yaml.SafeDumper):
    """A parameter's settings on one line, and so every list of plain values."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, _is_plain(sequence) or flow_style)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        # PyYAML hands over a mapping, or its items where they are to keep their order.
        return super().represent_mapping(tag, mapping, "type" in dict(mapping) or flow_style)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's
        """Nobody writes ``&id001``."""
        return True


def _is_plain(values: Iterable[Any]) -> bool:
    return not any(isinstance(value, Mapping | list | tuple) for value in values)


def plain(spec: StudySpec) -> dict[str, Any]:
    """The study as data without what is usual anyway, where it reads back the same; else all of it."""
    full = spec.as_mapping()
    short = {"name": spec.name, **_trimmed(full, spec.model_dump(mode="json", exclude_defaults=True))}
    return short if study_files.from_mapping(short, "study").as_mapping() == full else full


def _trimmed(full: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in full.items():
        if name not in said:
            continue
        # The space is the user's own data, of which nothing is usual.
        nested = isinstance(value, Mapping) and isinstance(said[name], Mapping) and name not in ("space", "fixed")
        found[name] = _trimmed(value, said[name]) if nested else value
    if "warm_start" in found:
        earlier: list[dict[str, Any]] = found["warm_start"]
        found["warm_start"] = [{key: value for key, value in one.items() if value} for one in earlier]
    return found


def _wrapped(comment: str) -> list[str]:
    """Lines of at most `WIDTH` characters; those after the first are indented below it."""
    indent = len(comment) - len(comment.lstrip())
    lines, line = list[str](), ""
    for word in comment.split():
        begun = " " * (indent if not lines else indent + 2)
        if line and len(begun) + len(line) + 1 + len(word) > WIDTH:
            lines.append(begun + line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, " " * (indent if not lines else indent + 2) + line if line else ""]
