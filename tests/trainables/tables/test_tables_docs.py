"""docs/tables.md: its section is valid, its mistakes print as shown, its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rdkit", reason='RDKit is not installed: pip install "tune-lora[chem]"')

from trainables.tables import SmilesColumn, TableSource, read
from tune_lora.errors import InputErrors
from tune_lora.table_spec import TableSpec

PAGE = (Path(__file__).parents[3] / "docs" / "tables.md").read_text("utf-8")
GOOD = "pair,temp,chi,polymer_class\nCCO_C,20,0.3,x\nC1CCCCC1_CO,25,0.5,\n"
BAD = "pair,temp,chi,polymer_class\nC_C,20,0.3,x\nC_C,hot,0.3,x\nC_C(,20,0.3,x\nC_C,20,0.3\nCC,20,,y\n"
PAIR = SmilesColumn("pair", split="_", parts=("polymer", "solvent"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_section_is_valid_and_names_every_setting() -> None:
    (section,) = blocks("yaml")
    told = yaml.safe_load(section)
    assert set(told) == set(TableSpec.model_fields)
    assert TableSpec.model_validate(told).source().smiles[0].molecules == ("polymer", "solvent")


def test_mistakes_print_as_shown(write) -> None:
    columns, rows, note = blocks("text")
    path = write(BAD, "measured.csv")
    with pytest.raises(InputErrors) as error:
        read(TableSource(path, ("tmp",), "chi", group="polymer"))
    assert f"{error.value}\n" == columns
    source = TableSource(path, ("temp",), "chi", group="polymer_class", smiles=(PAIR,))
    with pytest.raises(InputErrors) as error:
        read(source)
    assert sorted(f"{error.value}\n".splitlines()) == sorted(rows.splitlines())
    dropped = TableSource(path, ("temp",), "chi", smiles=(PAIR,), on_bad="drop")
    assert f"{read(dropped).notes[0]}\n" == note


def test_the_code_runs(write, capsys) -> None:
    (code,) = blocks("python")
    write(GOOD, "measured.csv")
    exec(compile(code, "docs/tables.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(2, ")
