"""YAML as people write it: ``1e-4`` is a number, and a key that stands twice is a mistake instead of a silent
overwrite. Nothing in a file is executed, and one that unfolds into more than it says is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tune_lora.errors import InputErrors

# YAML 1.1 takes 1e-4 for text, since its mantissa has no dot.
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
LARGEST = 8_000_000
"""Characters of a document."""
MOST_NODES = 200_000
"""Keys and values of a document with its aliases written out: a few lines of aliases of aliases can stand for more than
memory holds."""


def read(path: Path) -> Any:
    """The document in a YAML file.

    Raises:
        InputErrors: it is not text, not YAML, or a key stands twice.
    """
    try:
        return parse(path.read_text("utf-8"))[0]
    except UnicodeDecodeError:
        raise InputErrors([f"{path}: is not UTF-8 text; must be a YAML file"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputErrors([f"{path}{line}: {getattr(error, 'problem', None) or 'is not YAML'}"]) from None


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """The document in a YAML text, and its tree, which knows the lines; nothing of either where it is empty.

    Raises:
        yaml.YAMLError: it is not YAML, a key stands twice, it is too large, or a value is none (a 13th month).
    """
    if len(text) > LARGEST:
        raise yaml.MarkedYAMLError(problem=f"{len(text)} characters; must be at most {LARGEST}")
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node)
        return loader.construct_document(node), node
    except RecursionError:
        raise yaml.MarkedYAMLError(problem="is nested too deeply") from None
    except ValueError as error:  # what a number or a date of the right form raises that is none
        raise yaml.MarkedYAMLError(problem=str(error)) from None
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Counts nodes with aliases written out, in time that grows with the text alone."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise yaml.MarkedYAMLError(problem="holds an alias of itself", problem_mark=node.start_mark)
        if known:
            return known
        sizes[id(node)] = None  # on the way down
        total = 1
        for inner in _inner(node):
            total += size(inner)
        if total > MOST_NODES:
            problem = f"its aliases stand for more than {MOST_NODES} values; must be written out, and fewer"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        sizes[id(node)] = total
        return total

    size(root)


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def with_numbers(value: Any) -> Any:
    """The same plain data with ``'1e-4'`` as numbers, deeply; mappings and lists are new."""
    if isinstance(value, Mapping):
        return {str(key): with_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_numbers(item) for item in value]
    if isinstance(value, str) and _SCIENTIFIC.fullmatch(value):
        return float(value)
    return value


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # is refused below, as no key at all
            if key.value in seen:
                problem = f"duplicate key {key.value!r}; must be given once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
