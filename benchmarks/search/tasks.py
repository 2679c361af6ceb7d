"""What is searched in the laboratory: LCBench's learning curves through its surrogate, and variants of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import data_folder
from search_spaces.space import Space

EPOCHS = 52
DEVELOPMENT = ("3945", "7593", "126026", "167104", "167168", "168329", "189862", "189906")
"""Tasks to design on."""
Curve = Callable[[Mapping[str, Any], np.ndarray], np.ndarray]
"""What is seen of a configuration's scores by epoch."""
INPUTS = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
OPTIMA = Path(__file__).parent / "optima.json"
SPACE: dict[str, Any] = {
    "name": "lcbench",
    "parameters": {
        "batch_size": {"type": "int", "low": 16, "high": 512, "log": True},
        "learning_rate": {"type": "loguniform", "low": 1e-4, "high": 1e-1},
        "momentum": {"type": "uniform", "low": 0.1, "high": 0.99},
        "weight_decay": {"type": "uniform", "low": 1e-5, "high": 1e-1},
        "num_layers": {"type": "int", "low": 1, "high": 5},
        "max_units": {"type": "int", "low": 64, "high": 1024, "log": True},
        "max_dropout": {"type": "uniform", "low": 0.0, "high": 1.0},
    },
}


@dataclass(frozen=True)
class Task:
    """Learning curves of one problem. `curves` maps (n, d) `inputs` to (n, epochs) scores, higher is better.

    `best` is the best final score known, `median` that of random configurations: regret is 0 at one and 1 at the other.
    `change` alters a curve as it is seen (noise, failures), given the configuration.
    """

    name: str
    space: Space
    curves: Callable[[np.ndarray], np.ndarray]
    best: float
    median: float
    epochs: int = EPOCHS
    change: Curve | None = None
    inputs: tuple[str, ...] = INPUTS

    def train(self, params: Mapping[str, Any]) -> tuple[np.ndarray, float]:
        """Scores as they are seen, by epoch, shape (epochs,), and the final score that counts. From the first NaN on
        the trial has failed.
        """
        found = self.curves(np.array([[params[name] for name in self.inputs]], float))[0]
        return (found if self.change is None else self.change(params, found)), float(found[-1])

    def curve(self, params: Mapping[str, Any]) -> np.ndarray:
        """Scores as they are seen, by epoch, shape (epochs,)."""
        return self.train(params)[0]

    def regret(self, score: float) -> float:
        """0 is the best known, 1 the median of random configurations; 1 where there is no score yet."""
        return 1.0 if math.isnan(score) else (self.best - score) / (self.best - self.median)

    def changed(self, change: Curve, name: str) -> Task:
        """The same task with curves that look different."""
        return replace(self, change=change, name=f"{self.name}-{name}")

    def measured(self, name: str) -> Task:
        """The same task with the best and the median that are known under a name."""
        best, median = known(name)
        return replace(self, best=best, median=median)


def lcbench(task: str) -> Task:
    """A task of LCBench by its OpenML id, validation accuracy in percent.

    Source: the surrogate of YAHPO Gym (data v1.0) for LCBench (doi 10.6084/m9.figshare.13286105.v1).
    """
    best, median = known(task)
    return Task(task, Space.from_mapping(SPACE), _curves(task), best, median)


def known(name: str) -> tuple[float, float]:
    """The best and the median final score of a task or of a variant of it (``python -m benchmarks.search.optima``)."""
    found = json.loads(OPTIMA.read_text("utf-8"))[name]
    return found["best"], found["median"]


def _curves(task: str) -> Callable[[np.ndarray], np.ndarray]:
    session, code = _session(), _codes()[task]

    def curves(inputs: np.ndarray) -> np.ndarray:
        n = len(inputs)
        epochs = np.tile(np.arange(1, EPOCHS + 1), n)
        rows = np.column_stack([epochs, np.repeat(inputs, EPOCHS, axis=0)]).astype(np.float32)
        given = {"x_cat": np.full((len(rows), 1), code, np.int32), "x_cont": rows}
        scores: np.ndarray = session.run(None, given)[0][:, 1].reshape(n, EPOCHS).astype(float)
        return scores

    return curves


def final_scores(task: str, inputs: np.ndarray) -> np.ndarray:
    """Final scores of (n, 7) inputs, shape (n,)."""
    rows = np.column_stack([np.full(len(inputs), EPOCHS), inputs]).astype(np.float32)
    given = {"x_cat": np.full((len(rows), 1), _codes()[task], np.int32), "x_cont": rows}
    scores: np.ndarray = _session().run(None, given)[0][:, 1].astype(float)
    return scores


def all_tasks() -> Sequence[str]:
    """Ids of the tasks of the benchmark, the development ones included."""
    return tuple(name for name in json.loads(OPTIMA.read_text("utf-8")) if name.isdigit())


def _folder() -> Path:
    return data_folder() / "lcbench"


@cache
def _codes() -> dict[str, int]:
    found: dict[str, int] = json.loads((_folder() / "encoding.json").read_text("utf-8"))["OpenML_task_id"]
    return found


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(_folder() / "model.onnx"), options, providers=["CPUExecutionProvider"])
