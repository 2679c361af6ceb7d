"""The table section of a study file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from trainables.tables.source import LabelSource, SmilesColumn, TableSource
from tune_lora.table_spec import TableSpec


def test_a_section_is_the_source_it_describes() -> None:
    spec = TableSpec.model_validate(
        {
            "path": "chi.csv",
            "features": "temp",
            "target": "chi",
            "key": ["pair"],
            "smiles": {
                "column": "pair",
                "split": "_",
                "parts": ["polymer", "solvent"],
                "kind": "both",
                "per_atom": True,
            },
            "labels": {"path": "pi.csv", "target": "soluble", "match": ["pair"]},
            "on_bad": "drop",
        }
    )
    assert spec.with_paths(lambda path: f"/data/{path}").source("class") == TableSource(
        path=Path("/data/chi.csv"),
        features=("temp",),
        target="chi",
        target_kind="class",
        key=("pair",),
        smiles=(SmilesColumn("pair", "_", ("polymer", "solvent"), "both", per_atom=True),),
        labels=LabelSource(Path("/data/pi.csv"), "soluble", ("pair",)),
        on_bad="drop",
    )


def test_what_is_left_out_is_as_in_the_source() -> None:
    assert TableSpec(path="a.csv").source() == TableSource(Path("a.csv"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"path": "a.csv", "feature": "x"}, "Extra inputs are not permitted"),
        ({"path": "a.csv", "on_bad": "skip"}, "'error' or 'drop'"),
        ({"path": "a.csv", "smiles": [{"column": "s", "split": "_"}]}, "must be both (two names or more) or neither"),
        ({"path": "a.csv", "smiles": [{"column": "s", "bits": 2}]}, "greater than or equal to 8"),
    ],
)
def test_mistakes(section: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        TableSpec.model_validate(section)
    assert said in str(error.value)
