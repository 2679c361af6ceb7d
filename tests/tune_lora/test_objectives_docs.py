"""docs/objectives.md: its study files are valid, and the first one runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tune_lora import build, figures, study
from tune_lora import spec as specs
from tune_lora.records import pareto

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text("utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_there_are_examples() -> None:
    assert [example["name"] for example in EXAMPLES] == ["loss-and-cost", "character-and-time"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["name"]))
def test_each_example_is_valid(example: dict[str, object], tmp_path: Path) -> None:
    ready = build.plan(specs.from_mapping(example | {"results": str(tmp_path)}, "docs/objectives.md"))
    assert len(ready.spec.objective.several) == 2


def test_the_first_example_runs_and_ends_with_a_front(tmp_path: Path, ray_session: None) -> None:
    record = study.run(specs.from_mapping(EXAMPLES[0] | {"results": str(tmp_path)}, "docs/objectives.md"), n_trials=6)
    assert len(record.trials) == 6 and pareto(record)


def test_the_samplers_and_pictures_it_names_are_those_there_are() -> None:
    searching = PAGE.partition("## Who searches")[2].partition("search for several")[0]
    assert set(re.findall(r"`(\w+)`", searching)) == set(build.MANY) - {"auto"}
    assert all(f"figures/{kind}.png" in PAGE for kind in figures.TRADE_KINDS)
