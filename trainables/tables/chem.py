"""Molecules as numbers: RDKit's descriptors and Morgan fingerprints."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from trainables.tables.chem_cache import cached
from trainables.tables.source import SmilesColumn
from tune_lora.errors import InputError

LIMIT = 1e6
"""No descriptor is larger."""
_SLOW = frozenset({"NumBridgeheadAtoms"})
"""Left out: seconds for a macrocycle of fused rings, such as a ring of cellulose units, where all others take 30 ms."""
_EXTENSIVE = re.compile(
    r"(Exact|HeavyAtom)?MolWt|Num.*|.*Count|LabuteASA|TPSA|MolLogP|MolMR|HallKierAlpha|BertzCT|Chi\d.*|Kappa\d|Phi"
    r"|.*_VSA\d+|VSA_EState\d+|Ipc|fr_.*"
)
"""Names of the descriptors that grow with the number of atoms: sums over atoms, bonds or fragments, and the graph
indices that do about so (Ipc in its logarithm)."""


@functools.lru_cache(maxsize=1)
def _rdkit() -> ModuleType:
    """RDKit's `Chem`.

    Raises:
        InputError: RDKit is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError:
        raise InputError('SMILES columns need RDKit, which is not installed: pip install "tune-lora[chem]"') from None
    return Chem


@functools.lru_cache(maxsize=100_000)
def canonical(smiles: str) -> str:
    """The SMILES of the same molecule that all its spellings share.

    Raises:
        ValueError: RDKit does not read it; the message says why.
        InputError: RDKit is not installed.
    """
    chem = _rdkit()
    if not smiles.strip():
        raise ValueError("is empty; must be a SMILES")
    from rdkit import rdBase

    with rdBase.BlockLogs():  # RDKit would say it on standard error, without the row
        molecule = chem.MolFromSmiles(smiles.strip())
        if molecule is None:
            raise ValueError(f"got {_short(smiles)!r}, which is no SMILES of a molecule: {_reason(smiles)}")
    return str(chem.MolToSmiles(molecule))


def features(smiles: Sequence[str], column: SmilesColumn, name: str) -> tuple[np.ndarray, list[str], list[str]]:
    """What molecules are in numbers.

    Args:
        smiles: n canonical SMILES.
        column: kind and settings.
        name: of the molecules in a row (`SmilesColumn.molecules`), which begins the names of the features.

    Returns:
        ``(n, d)`` float64, the d names, and notes on values that do not exist (0 then) or are beyond `LIMIT` (cut).
        The names are the same for every table.
    """
    unique = list(dict.fromkeys(smiles))
    blocks: list[np.ndarray] = []
    names: list[str] = []
    notes: list[str] = []
    if column.kind in ("descriptors", "both"):
        values, notes = _tamed(_descriptors(unique), name)
        blocks.append(_per_atom(values, unique) if column.per_atom else values)
        names += [f"{name}.{descriptor}" for descriptor in descriptor_names()]
    if column.kind in ("fingerprint", "both"):
        blocks.append(_fingerprints(unique, column.bits, column.radius))
        names += [f"{name}.bit_{bit}" for bit in range(column.bits)]
    row = {one: index for index, one in enumerate(unique)}
    return np.concatenate(blocks, axis=1)[[row[one] for one in smiles]], names, notes


@functools.lru_cache(maxsize=1)
def descriptor_names() -> tuple[str, ...]:
    """Of RDKit's descriptors that are used, in its order."""
    _rdkit()
    from rdkit.Chem import Descriptors

    return tuple(name for name, _ in Descriptors.descList if name not in _SLOW)


def _descriptors(smiles: Sequence[str]) -> np.ndarray:
    """``(n, d)``, NaN where a descriptor does not exist. Ipc, which grows exponentially with a molecule, is given as
    the natural logarithm of 1 + Ipc."""
    from rdkit.Chem import Descriptors

    names = descriptor_names()
    functions = [function for name, function in Descriptors.descList if name in names]

    def compute(one: str) -> np.ndarray:
        molecule = _molecule(one)
        values = np.array([_value(function, molecule) for function in functions], dtype=np.float64)
        ipc = names.index("Ipc")
        values[ipc] = np.log1p(values[ipc])
        return values

    return cached("descriptors", smiles, len(names), compute)


def _value(function: Callable[[Any], float], molecule: Any) -> float:
    try:
        return float(function(molecule))
    except (ArithmeticError, ValueError, RuntimeError):  # no partial charges, no rings to divide by
        return math.nan


def _fingerprints(smiles: Sequence[str], bits: int, radius: int) -> np.ndarray:
    """``(n, bits)`` of 0 and 1."""
    _rdkit()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    return cached(f"morgan-{radius}-{bits}", smiles, bits, lambda one: generator.GetFingerprintAsNumPy(_molecule(one)))


def _per_atom(values: np.ndarray, smiles: Sequence[str]) -> np.ndarray:
    """Extensive descriptors divided by the heavy atoms of their molecule."""
    extensive = np.array([bool(_EXTENSIVE.fullmatch(name)) for name in descriptor_names()])
    atoms = np.array([max(1, _molecule(one).GetNumHeavyAtoms()) for one in smiles], dtype=np.float64)
    return np.where(extensive, values / atoms[:, None], values)


def _tamed(values: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Finite and within `LIMIT`, and what was done for it."""
    absent = ~np.isfinite(values)
    huge = ~absent & (np.abs(np.where(absent, 0.0, values)) > LIMIT)
    notes = []
    for cells, done in ((absent, "do not exist and are 0"), (huge, f"are beyond {LIMIT:g} and are cut there")):
        if cells.any():
            which = [f"{name}.{descriptor_names()[index]}" for index in np.flatnonzero(cells.any(axis=0))]
            notes.append(f"descriptors of {int(cells.any(axis=1).sum())} molecules {done}: {', '.join(which)}")
    return np.clip(np.where(absent, 0.0, values), -LIMIT, LIMIT), notes


def _molecule(smiles: str) -> Any:
    return _rdkit().MolFromSmiles(smiles)


def _reason(smiles: str) -> str:
    """What RDKit holds against a SMILES."""
    chem = _rdkit()
    molecule = chem.MolFromSmiles(smiles.strip(), sanitize=False)
    if molecule is None:
        return "its syntax is wrong"
    problems = chem.DetectChemistryProblems(molecule)
    return str(problems[0].Message()) if problems else "RDKit does not read it"


def _short(smiles: str) -> str:
    return smiles if len(smiles) <= 60 else f"{smiles[:57]}..."
