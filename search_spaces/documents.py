"""YAML as people write it: ``1e-4`` is a number, and a key that stands twice is a mistake instead of a silent
overwrite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tune_lora.errors import InputErrors

# YAML 1.1 takes 1e-4 for text, since its mantissa has no dot.
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def read(path: Path) -> Any:
    """The document in a YAML file.

    Raises:
        InputErrors: it is not text, not YAML, or a key stands twice.
    """
    try:
        return yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys)  # a SafeLoader
    except UnicodeDecodeError:
        raise InputErrors([f"{path}: is not UTF-8 text; must be a YAML file"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputErrors([f"{path}{line}: {getattr(error, 'problem', None) or 'is not YAML'}"]) from None


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
            if key.value in seen:
                problem = f"duplicate key {key.value!r}; must be given once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
