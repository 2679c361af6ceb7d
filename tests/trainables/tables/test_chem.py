"""Molecules as numbers: the same for every spelling, finite, kept on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit", reason='RDKit is not installed: pip install "tune-lora[chem]"')

from trainables.tables import SmilesColumn, TableSource, chem, chem_cache, read
from tune_lora.errors import InputErrors

RING_OF_6 = "C1" + "CC" * 5 + "C1"
RING_OF_9 = "C1" + "CC" * 8 + "C1"
PAIR = SmilesColumn("pair", split="_", parts=("polymer", "solvent"))


def values(smiles: str, name: str, **settings: object) -> float:
    """One feature of one molecule."""
    column = SmilesColumn("s", **settings)  # type: ignore[arg-type]  # keyword arguments of a test
    found, names, _ = chem.features([chem.canonical(smiles)], column, "s")
    return float(found[0, names.index(f"s.{name}")])


def test_descriptors_are_those_of_the_molecule() -> None:
    assert values("CCO", "MolWt") == pytest.approx(46.069)
    assert values("CCO", "NumHDonors") == 1
    assert values("CCO", "TPSA") == pytest.approx(20.23)
    assert values("c1ccccc1", "NumAromaticRings") == 1


def test_every_spelling_of_a_molecule_is_the_same_row() -> None:
    column = SmilesColumn("s", kind="both")
    spelled = [chem.canonical(one) for one in ("OCC", "C(O)C", "[H]OC([H])([H])C([H])([H])[H]")]
    found, _, _ = chem.features(spelled, column, "s")
    assert len(set(spelled)) == 1
    assert (found == found[0]).all()


def test_a_ring_of_more_units_is_the_same_chain_per_atom() -> None:
    names = ("MolWt", "HeavyAtomCount", "MolLogP", "MolMR", "NumValenceElectrons", "Chi0")
    for name in names:
        assert values(RING_OF_6, name, per_atom=True) == pytest.approx(values(RING_OF_9, name, per_atom=True))
        assert values(RING_OF_6, name) != pytest.approx(values(RING_OF_9, name))
    assert values(RING_OF_6, "FractionCSP3", per_atom=True) == 1.0, "what does not grow is left as it is"


def test_twice_a_molecule_is_twice_every_sum() -> None:
    """The names that are divided are those that grow: measured on a molecule and two of it side by side."""
    one, names, _ = chem.features([chem.canonical("CC(=O)OCCN")], SmilesColumn("s"), "s")
    two, _, _ = chem.features([chem.canonical("CC(=O)OCCN.CC(=O)OCCN")], SmilesColumn("s"), "s")
    per_atom = SmilesColumn("s", per_atom=True)
    divided, _, _ = chem.features([chem.canonical("CC(=O)OCCN")], per_atom, "s")
    doubled = np.isclose(two[0], 2 * one[0]) & (one[0] != 0)
    untouched = [name for name, grew, same in zip(names, doubled, divided[0] == one[0], strict=True) if grew and same]
    assert not untouched


def test_every_table_has_the_same_columns() -> None:
    column = SmilesColumn("s", kind="both", bits=64)
    _, one, _ = chem.features([chem.canonical("C")], column, "s")
    _, other, _ = chem.features([chem.canonical("c1ccccc1Br"), chem.canonical("[Na+].[Cl-]")], column, "s")
    assert one == other
    assert one[-1] == "s.bit_63" and len(one) == len(chem.descriptor_names()) + 64


def test_what_does_not_exist_is_zero_and_said() -> None:
    found, _, notes = chem.features([chem.canonical("[Fe]"), chem.canonical("C")], SmilesColumn("s"), "s")
    assert np.isfinite(found).all() and np.abs(found).max() <= chem.LIMIT
    assert len(notes) == 1 and notes[0].startswith("descriptors of 1 molecules do not exist and are 0: ")
    assert "s.BCUT2D_MWHI" in notes[0]


def test_the_index_that_explodes_is_given_as_a_logarithm() -> None:
    assert 20 < values("C" * 60, "Ipc") < 60


def test_fingerprints_are_bits_of_the_width_asked_for() -> None:
    found, names, _ = chem.features([chem.canonical("CCO")], SmilesColumn("s", kind="fingerprint", bits=128), "s")
    assert found.shape == (1, 128) and names[0] == "s.bit_0"
    assert set(np.unique(found)) == {0.0, 1.0}


def test_bad_molecules_are_listed_with_what_is_wrong(write) -> None:
    path = write("pair,y\nC_CC,1\nC(_CC,2\nC_C(C)(C)(C)(C)C,3\nC,4\nC_,5\n,6\n")
    with pytest.raises(InputErrors) as error:
        read(TableSource(path, (), "y", smiles=(PAIR,)))
    assert error.value.mistakes == (
        "data.csv:3: pair: polymer got 'C(', which is no SMILES of a molecule: its syntax is wrong",
        "data.csv:4: pair: solvent got 'C(C)(C)(C)(C)C', which is no SMILES of a molecule: "
        "Explicit valence for atom # 0 C, 5, is greater than permitted",
        "data.csv:5: pair: got 1 molecules; must be 2: polymer'_'solvent",
        "data.csv:6: pair: solvent is empty; must be a SMILES",
        "data.csv:7: pair: got 1 molecules; must be 2: polymer'_'solvent",
    )


def test_a_bad_molecule_may_be_dropped(write) -> None:
    path = write("s,y\nOCC,1\nC(,2\n")
    table = read(TableSource(path, (), "y", smiles=(SmilesColumn("s"),), on_bad="drop"))
    assert table.keys == ("CCO",) and table.rows.tolist() == [2]
    assert table.notes[0].startswith("data.csv: left out 1 of 2 rows: line 3 (s: got 'C(', which is no SMILES")


def test_pairs_are_two_molecules_and_the_key_of_their_row(write) -> None:
    path = write("pair,t\nOCC_C,1\nC(O)C_C,2\n")
    table = read(TableSource(path, ("t",), smiles=(PAIR,)))
    assert table.keys == ("CCO\tC", "CCO\tC")
    assert table.names[0] == "t"
    assert table.features[0, table.names.index("polymer.MolWt")] == pytest.approx(46.069)
    assert table.features[0, table.names.index("solvent.MolWt")] == pytest.approx(16.043)
    named = read(TableSource(path, (), key=("pair", "t"), smiles=(PAIR,)))
    assert named.keys == ("CCO\tC\t1", "CCO\tC\t2")


@pytest.mark.parametrize(
    ("smiles", "line"),
    [
        (
            (SmilesColumn("pair", split="_"),),
            "smiles 'pair': got split '_' with parts []; must be both (two names or more) or neither",
        ),
        (
            (SmilesColumn("pair", parts=("a", "b")),),
            "smiles 'pair': got split None with parts ['a', 'b']; must be both",
        ),
        (
            (SmilesColumn("pair", split="_", parts=("a", "a")),),
            "smiles 'pair': got parts ['a', 'a']; must be different",
        ),
        ((SmilesColumn("pair", bits=2),), "smiles 'pair': got bits 2, radius 2; must be from 8 and from 0"),
        ((PAIR, PAIR), "smiles: got column 'pair' more than once; a column must be one thing"),
    ],
)
def test_settings_that_contradict_each_other(write, smiles: tuple[SmilesColumn, ...], line: str) -> None:
    with pytest.raises(InputErrors) as error:
        read(TableSource(write("pair\nC_C\n"), (), smiles=smiles))
    assert str(error.value).startswith(line)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The molecules that had to be computed, with an empty cache."""
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "empty"))
    return []


def lengths(smiles: list[str], calls: list[str]) -> list[list[float]]:
    def compute(one: str) -> np.ndarray:
        calls.append(one)
        return np.array([len(one), 0.5])

    return chem_cache.cached("length", smiles, 2, compute).tolist()


def cache_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "empty" / "chem").iterdir()
    return found


def test_a_molecule_is_computed_once(calls: list[str], tmp_path: Path) -> None:
    assert lengths(["C", "CC", "C"], calls) == [[1, 0.5], [2, 0.5], [1, 0.5]]
    assert lengths(["CCC", "CC"], calls) == [[3, 0.5], [2, 0.5]]
    assert calls == ["C", "CC", "CCC"]
    assert cache_file(tmp_path).name == f"length-v{chem_cache.VERSION}-rdkit-{chem_cache._version()}.npz"
    assert lengths([], calls) == []


def test_what_another_version_of_the_code_computed_is_computed_again(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths(["C"], calls)
    monkeypatch.setattr(chem_cache, "VERSION", chem_cache.VERSION + 1)
    assert lengths(["C"], calls) == [[1, 0.5]]
    assert calls == ["C", "C"]


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_cache_that_cannot_be_read_is_made_anew(calls: list[str], tmp_path: Path, damage: bytes | None) -> None:
    lengths(["C"], calls)
    path = cache_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-40] if damage is None else damage)
    assert lengths(["C"], calls) == [[1, 0.5]]
    assert lengths(["C"], calls) == [[1, 0.5]]
    assert calls == ["C", "C"]


def test_rows_that_another_process_kept_meanwhile_stay(calls: list[str]) -> None:
    def compute(one: str) -> np.ndarray:
        if one == "C":
            lengths(["CCCC"], [])  # another trial, between our reading and our writing
        return np.array([len(one), 0.5])

    chem_cache.cached("length", ["C"], 2, compute)
    lengths(["C", "CCCC"], calls)
    assert calls == []


def test_without_rdkit_the_way_to_it_is_said(write) -> None:
    write("s,y\nC,1\n")
    program = (
        "import sys; sys.modules['rdkit'] = None\n"
        "from pathlib import Path\n"
        "from trainables.tables import SmilesColumn, TableSource, read\n"
        "from tune_lora.errors import InputError\n"
        "print(len(read(TableSource(Path('data.csv'), ('y',)))))\n"
        "try: read(TableSource(Path('data.csv'), (), smiles=(SmilesColumn('s'),)))\n"
        "except InputError as error: print(error)\n"
    )
    root = Path(chem.__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(root)}
    )
    assert ended.stdout.splitlines() == [
        "1",
        'SMILES columns need RDKit, which is not installed: pip install "tune-lora[chem]"',
    ], ended.stderr
