"""docs/llm.md: its study file is valid with a user's files in place, and it names every setting and metric."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from trainables import llm_lora
from tune_lora import build
from tune_lora import spec as specs
from tune_lora.text_spec import TextSpec

TEXT = (Path(__file__).parents[2] / "docs" / "llm.md").read_text("utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_study_file_is_valid(tmp_path: Path) -> None:
    (block,) = BLOCKS
    (tmp_path / "answers.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n', "utf-8"
    )
    (tmp_path / "study.yaml").write_text(block, "utf-8")
    plan = build.plan(specs.load(tmp_path / "study.yaml"))
    assert plan.space.name == yaml.safe_load(block)["space"]
    assert [one.provenance for one in plan.knowledge.references] == ["prior:baseline"]


def test_every_metric_and_every_parameter_of_text_alone_is_named() -> None:
    own = [name for name in llm_lora.RULES if name.startswith("lora_") and "*" not in name]
    for name in (*llm_lora.METRICS, *own, "batch_size", "effective_batch_size", "epochs", "max_steps", "quantization"):
        assert f"`{name}`" in TEXT, name


def test_every_setting_of_the_section_is_named() -> None:
    for name in TextSpec.model_fields.keys() - {"path"}:
        assert re.search(rf"`(text\.)?{name}[`:]", TEXT), name
