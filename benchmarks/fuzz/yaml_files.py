"""Study files, spaces, dataset files, arguments and expressions: what a user writes by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from benchmarks.fuzz import samples
from benchmarks.fuzz.mutation import STRANGE, TEXTS, Draw, documents, spoilt

Strategy = st.SearchStrategy[dict[str, bytes]]


def as_yaml(document: Any) -> bytes:
    """YAML of any document; what YAML has no form for becomes text."""
    try:
        text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    except (yaml.YAMLError, RecursionError, ValueError):
        text = json.dumps(document, default=str, skipkeys=True)
    return text.encode("utf-8", "surrogatepass")


def as_toml(value: Any, place: str = "") -> str:
    """TOML of a mapping, or of a value within one."""
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(str(key))} = {as_toml(item, 'x')}" for key, item in value.items())
        return (
            f"{{{inner}}}"
            if place
            else "\n".join(f"{json.dumps(str(k))} = {as_toml(v, 'x')}" for k, v in value.items())
        )
    if isinstance(value, list):
        return f"[{', '.join(as_toml(item, 'x') for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan" if value != value else str(value))
    return json.dumps(str(value))


def yaml_file(name: str, valid: Callable[[Path], Any]) -> Callable[[Path], Strategy]:
    """A YAML file whose document was changed, or its bytes, or both."""

    def files(root: Path) -> Strategy:
        seeds = valid(root)
        document = documents(seeds).map(as_yaml)
        content = st.one_of(
            document, document, st.sampled_from(seeds).map(as_yaml).flatmap(spoilt), document.flatmap(spoilt)
        )
        return content.map(lambda made: {name: made})

    return files


def every_document(root: Path) -> list[Any]:
    """All that is shipped as YAML."""
    return [*samples.spaces(), *samples.studies(root)]


KEYS = (
    "lr", "learning_rate", "search.seed", "search.sampler", "budget.n_trials", "budget.target", "fixed.x", "study.name",
    "space", "preset", "trainer", "dataset.path", "resources.gpu", "resources.concurrent", "objective.metrics",
    "phases", "storage", "", "a..b", ".", "fixed.", "study.", "network_dim", "optimizer.lr", "training.batch_size",
    "dataset", "text.fields.a", "search.warm_start", "scheduler.name", "max_train_epochs", "evaluation.n_images",
    "precision",
)  # fmt: skip


RIGHT = (
    "budget.n_trials=3", "search.seed=7", "seed=1", "search={sampler: random}", "budget.plateau=null", "results=here",
    "tracking.wandb=off", "resources.concurrent=2", "budget={n_trials: 2}", "scheduler={name: none}",
    "study.name=other",
)  # fmt: skip


@st.composite
def arguments(draw: Draw, root: Path) -> dict[str, bytes]:
    """A study file and what is given with ``--set``."""
    study = draw(st.sampled_from(samples.studies(root)))
    keys = [*map(str, study), *KEYS]
    likely = st.sampled_from(["1", "2", "0.5", "1e-4", "auto", "true", "[1, 2]", "tpe", "curve", "lora_v1", "null"])
    value = st.one_of(
        likely, likely, STRANGE.map(as_yaml).map(lambda one: one.decode("utf-8", "replace")), st.sampled_from(TEXTS)
    )
    right = st.sampled_from(RIGHT)
    one = st.tuples(st.sampled_from(keys), st.sampled_from(["=", "=", "=", "", "=="]), value).map("".join)
    given = draw(st.lists(st.one_of(one, one, right, right, st.sampled_from(TEXTS)), min_size=1, max_size=3))
    return {"study.yaml": as_yaml(study), "arguments.json": json.dumps(given).encode()}


@st.composite
def configuration(draw: Draw, root: Path) -> dict[str, bytes]:
    """A configuration beside its study file, and where it was trained before."""
    pictured = {**samples.CURVE, "trainer": "diffusion_lora", "space": "lora_tiny", "objective": {}}
    pictured["dataset"] = {"path": str(root / "character")}
    study, config = draw(st.sampled_from([(samples.CURVE, samples.CURVE_CONFIG), (pictured, samples.LORA_CONFIG)]))
    changed = documents([config, {"a": config}]).map(as_yaml)
    content = draw(st.one_of(changed, changed, st.just(as_yaml(config)).flatmap(spoilt)))
    files = {"study.yaml": as_yaml(study), "best_config.yaml": content}
    if study is pictured:
        return files | {"trained/kept.txt": b"somebody's"}
    record = {"params": samples.CURVE_CONFIG, "seed": 0}
    if draw(st.booleans()):
        files["best_config.yaml"] = as_yaml(config)
        files["trained/study.yaml"] = as_yaml(study)
        found = draw(
            st.one_of(documents([record]).map(lambda one: samples.lines([one])), spoilt(samples.lines([record])))
        )
        files["trained/training.json"] = found
    return files


def json_file(valid: Any) -> st.SearchStrategy[bytes]:
    """A JSON file whose document was changed, or its bytes."""
    return st.one_of(documents([valid]).map(samples.as_json), spoilt(samples.as_json(valid)))


@st.composite
def toml(draw: Draw, _: Path) -> dict[str, bytes]:
    """A dataset file beside its pictures."""
    changed = documents([samples.TOML]).map(lambda one: as_toml(one).encode("utf-8", "surrogatepass"))
    plain = st.just(as_toml(samples.TOML).encode()).flatmap(spoilt)
    content = draw(st.one_of(changed, changed, plain, changed.flatmap(spoilt)))
    return {"dataset.toml": content} | {f"images/{name}": held for name, held in samples.pictures(3).items()}


@st.composite
def expression(draw: Draw, _: Path) -> dict[str, bytes]:
    """An expression."""
    rules = [
        str(one[key])
        for space in samples.spaces()
        for one in space.get("constraints", ())
        for key in ("rule", "when", "require")
        if key in one
    ]
    text = st.one_of(
        st.sampled_from(rules).map(str.encode).flatmap(spoilt), st.sampled_from(TEXTS).map(str.encode), _sums()
    )
    return {"expression.txt": draw(text)}


def _sums() -> st.SearchStrategy[bytes]:
    leaf = st.sampled_from(["1", "0", "x", "10**9", "'a'", "1e308", "a.b", "True", "[1, 2]", "(1,)", "-1", "0.5"])
    called = st.sampled_from(["abs", "min", "max", "int", "round", "float", "str"])
    signs = ["+", "-", "*", "/", "//", "%", "**", "and", "or", "<", "==", "in", "not in", "if x else"]
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(signs), inner).map(lambda one: f"({' '.join(one)})"),
            st.tuples(called, inner).map(lambda one: f"{one[0]}({one[1]})"),
            inner.map(lambda one: f"not {one}"),
        ),
        max_leaves=12,
    ).map(str.encode)
