"""docs/study_file.md is what the code makes, says what every setting is for, and knows the whole of a space."""

from __future__ import annotations

import re

import yaml

from scripts import study_reference
from search_spaces import expressions, fields, reader
from tests.docs.blocks import ROOT
from tune_lora import spec
from tune_lora.closed import models_in

PAGE = (ROOT / "docs" / "study_file.md").read_text("utf-8")
HEAD = PAGE.partition("\n## The file\n")[0]


def test_the_page_is_what_the_code_makes() -> None:
    assert study_reference.page() == PAGE, "make docs-reference"


def test_every_setting_says_what_it_is_for() -> None:
    every = list(study_reference.sections())
    assert len({model for _, model in every}) > 20
    for place, model in every:
        assert model.__doc__, place
        for name, field in model.model_fields.items():
            assert field.description or list(models_in(field.annotation)), f"{place}.{name}"


def test_every_setting_stands_under_its_section() -> None:
    parts = dict(re.findall(r"^##+ (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
    for section, model in (
        ("`budget`", spec.BudgetSpec),
        ("`resources`", spec.ResourcesSpec),
        ("The file", spec.StudySpec),
    ):
        assert re.findall(r"^\| `(\w+)` \|", parts[section], re.MULTILINE) == list(model.model_fields)
    assert "| `n_trials` | whole number from 1 | `50` |" in parts["`budget`"]


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE)
    }
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(links) > 20 and set(links) <= headings


def test_it_knows_the_whole_of_a_space() -> None:
    named = set(re.findall(r"`(\w+)`", HEAD))
    assert (
        set(reader.KEYS) | set(fields._READERS) | {key for keys, _ in fields._READERS.values() for key in keys} <= named
    )
    assert (
        "functions " + ", ".join(expressions.FUNCTIONS).replace(", float", " and float").replace("round,", "round")
        in HEAD
    )


def test_what_it_says_of_going_on_is_so() -> None:
    shown = next(line for line in HEAD.splitlines() if "continued only with" in line)
    for word in ("data", "base", "trainer", "space", "objective", "evaluation"):
        assert word in shown and word in spec.DEFINING
    assert not {"search", "scheduler", "budget", "resources", "tracking", "results", "storage"} & set(spec.DEFINING)


def test_the_shortest_study_has_nothing_to_spare() -> None:
    shortest = yaml.safe_load(HEAD.partition("```yaml\n")[2].partition("```")[0])
    assert set(shortest) == {"name", "dataset", "space"} and list(shortest["dataset"]) == ["path"]


def test_it_says_what_a_study_is_about_unless_its_file_does() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `metric` |"))
    assert set(spec._ABOUT) == {"llm_lora", "classifier"}
    for trainer, usual in spec._ABOUT.items():
        assert f"{trainer} has {usual['metric']}" in row or f"{trainer} {usual['metric']}" in row
