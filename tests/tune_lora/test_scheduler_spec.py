"""The scheduler section of a study file: what is read, what is refused and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_lora import scheduler as schedulers
from tune_lora import spec as specs
from tune_lora.errors import InputErrors
from tune_lora.scheduler_spec import DEFAULTS, READS, SchedulerSpec

STUDY = {"name": "s", "trainer": "curve", "space": "lora_tiny"}


def read(**section: Any) -> SchedulerSpec:
    return specs.from_mapping({**STUDY, "scheduler": section}, "study.yaml").scheduler


@pytest.mark.parametrize("name", sorted(READS))
def test_each_is_built_from_its_section_alone(name: str) -> None:
    section = read(name=name, **({"upper": 1.0} if name == "threshold" else {}))
    settings = section.settings()
    assert set(settings) == set(READS[name])
    schedulers.build(section.name, max_budget=20, **settings)


def test_every_setting_has_a_default_and_a_reader() -> None:
    assert set(SchedulerSpec.model_fields) - {"name"} == set(DEFAULTS)
    assert set(DEFAULTS) == {setting for settings in READS.values() for setting in settings}


def test_class_names_are_understood() -> None:
    assert [read(name=name).name for name in ("MedianPruner", "ASHAScheduler", "NopPruner")] == [
        "median",
        "asha",
        "none",
    ]


@pytest.mark.parametrize("section", [{}, {"grace": "auto"}, {"name": "patient", "patience": 2}, {"promote": True}])
def test_a_section_written_back_is_equal(section: dict[str, Any]) -> None:
    study = specs.from_mapping({**STUDY, "scheduler": section}, "study.yaml")
    assert specs.from_mapping(study.as_mapping(), "study.yaml").scheduler == study.scheduler


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "ahsa"}, "got 'ahsa'; did you mean 'asha'?"),
        ({"graze": 3}, "unknown key 'graze'; did you mean 'grace'?"),
        ({"grace": 0}, "got 0; must be auto or a whole number from 1"),
        ({"grace": "automatic"}, "got 'automatic'; must be auto or a whole number from 1"),
        ({"eta": 1}, "got 1; must be greater than 1"),
        (
            {"n_startup_trials": 5},
            "got n_startup_trials, which asha does not read; it reads grace, eta, min_results, promote",
        ),
        ({"name": "median", "grace": 3}, "got grace, which median does not read; it reads n_startup_trials,"),
        ({"name": "none", "eta": 3}, "got eta, which none does not read; it reads no settings"),
        ({"name": "hyperband", "eta": 2.5}, "got eta 2.5; hyperband needs a whole number from 2"),
        ({"name": "successive_halving", "grace": "auto"}, "got grace auto; successive_halving needs a whole number"),
        ({"name": "threshold"}, "got neither lower nor upper; threshold needs at least one"),
        ({"name": "threshold", "lower": 2, "upper": 1}, "got lower 2 above upper 1"),
        ({"promote": True, "grace": "auto"}, "got promote with grace auto"),
        ({"promote": True, "min_results": 3}, "got promote with min_results"),
    ],
)
def test_a_mistake_is_one_clear_line(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputErrors) as caught:
        read(**section)
    assert len(caught.value.mistakes) == 1
    assert caught.value.mistakes[0].startswith("study.yaml: scheduler")
    assert message in caught.value.mistakes[0]


def test_the_documentation_shows_what_is_read_and_its_examples_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "schedulers.md").read_text("utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        read(**yaml.safe_load(example)["scheduler"])
    for name, settings in READS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        shared = READS["median"] if "those of `median`" in row else ()
        assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) - {"median"} | set(shared) == set(settings)
