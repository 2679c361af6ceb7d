"""Uniform draws of the laboratory's space."""

from __future__ import annotations

import numpy as np

from benchmarks.search.tasks import INPUTS, SPACE


def from_unit(points: np.ndarray) -> np.ndarray:
    """Inputs, shape (n, 7), of points in the unit cube."""
    columns = []
    for index, name in enumerate(INPUTS):
        domain, unit = SPACE["parameters"][name], points[:, index]
        low, high = domain["low"], domain["high"]
        log = domain["type"] == "loguniform" or domain.get("log", False)
        value = low * (high / low) ** unit if log else low + (high - low) * unit
        columns.append(np.round(value) if domain["type"] == "int" else value)
    return np.column_stack(columns)
