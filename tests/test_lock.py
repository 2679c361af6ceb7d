"""The lock: exact pins only, no place to fetch from, and enough for what pyproject.toml asks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINES = [line for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
ASKED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def test_each_line_is_one_exact_pin() -> None:
    assert len(LINES) > 50
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    assert len(PINS) == len(LINES), "a package is pinned twice"


def test_it_names_no_place_to_fetch_from() -> None:
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert not re.search(r"://|--|@|\bfile:", text)


@pytest.mark.parametrize("asked", ASKED)
def test_it_satisfies_the_project(asked: str) -> None:
    requirement = Requirement(asked)
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} is not locked; run `make lock`"
    assert requirement.specifier.contains(PINS[name], prereleases=True), f"{asked} but {PINS[name]} is locked"


@pytest.mark.parametrize(
    ("name", "version"), [("torch", "2.14.1"), ("torchvision", "0.29.2"), ("ray", "2.60.0"), ("optuna", "5.0.0")]
)
def test_the_versions_the_project_is_verified_with(name: str, version: str) -> None:
    assert PINS[name] == version


def test_lower_bounds_are_no_pins() -> None:
    assert all({s.operator for s in Requirement(asked).specifier} <= {">=", "<"} for asked in ASKED)


def test_everything_imported_is_asked_for() -> None:
    """What the sources import, by distribution; a package that comes along by chance may leave by chance."""
    import ast
    import sys
    from importlib.metadata import packages_distributions

    own = {"tune_lora", "trainables", "search_spaces", "cluster"}
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name, extra in extras.items() if name != "dev" for line in extra)]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    names = set()
    for package in own:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                names |= {module.partition(".")[0] for module in modules}
    foreign = names - own - set(sys.stdlib_module_names) - {""}
    assert foreign
    given = packages_distributions()
    missing = {name for name in foreign if not {canonicalize_name(d) for d in given.get(name, [name])} & asked}
    assert not missing, f"imported but not in pyproject.toml: {sorted(missing)}"
