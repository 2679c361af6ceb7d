"""A finished classifier on disk, and what it says of new rows. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from trainables.classification.data import Examples
from trainables.classification.fit import JUDGED_TOGETHER
from trainables.classification.inputs import Inputs, Recipe, encoded
from trainables.classification.network import Network, Shape
from trainables.classification.settings import Chosen
from trainables.lora.pictures import IMAGE_SUFFIXES
from trainables.paths import inside
from trainables.tables.files import load
from tune_lora.errors import InputError

WEIGHTS, ABOUT = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Prediction:
    """One row: where it stands, its most likely class, and the probability of every class."""

    place: str
    label: str
    probabilities: Mapping[str, float]


def write(
    folder: Path, network: Network, settings: Chosen, recipe: Recipe, examples: Examples, metrics: Mapping[str, float]
) -> None:
    """Writes ``model.safetensors`` and ``model.json`` (what it is made of, classes, columns, how rows are read)."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    about = {
        "shape": asdict(network.shape),
        "classes": list(examples.classes),
        "columns": list(examples.names),
        "settings": dict(settings.values),
        "recipe": recipe.as_dict(),
        "metrics": dict(metrics),
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def predict(folder: Path, path: Path, *, text: str | None = None) -> list[Prediction]:
    """What the model in `folder` says of the images at `path` (a file or a folder), or of a table's rows; `text` names
    a table's column of texts.

    Raises:
        InputError: there is no model, or nothing that it can read.
    """
    if not (folder / ABOUT).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} holds no classifier; must hold {ABOUT} and {WEIGHTS}, as `tune-lora train` writes")
    about = json.loads((folder / ABOUT).read_text("utf-8"))
    shape, settings = Shape(**about["shape"]), Chosen(about["settings"])
    recipe = Recipe.from_dict(about["recipe"])
    network = Network(shape, settings)
    network.load_state_dict(load_file(folder / WEIGHTS))
    network.eval()
    examples = _rows(shape.kind, path, tuple(about["columns"]), tuple(about["classes"]), text)
    inputs = Inputs(encoded(examples, settings, {}), examples.labels, recipe, torch.device("cpu"))
    with torch.no_grad():
        parts = [network(inputs.batch(index)).logits for index in torch.arange(len(examples)).split(JUDGED_TOGETHER)]
    shares = torch.cat(parts).softmax(dim=1).tolist()
    return [
        Prediction(place, examples.classes[int(np.argmax(row))], dict(zip(examples.classes, row, strict=True)))
        for place, row in zip(examples.places, shares, strict=True)
    ]


def _rows(kind: str, path: Path, columns: tuple[str, ...], classes: tuple[str, ...], text: str | None) -> Examples:
    """Rows without a label: it is 0 of all of them."""
    if kind == "image":
        images = _images(path)
        return _unlabelled(kind, classes, tuple(map(str, images)), images=images)
    cells = load(path)
    wanted = columns if kind == "tabular" else tuple(name for name in (text,) if name is not None)
    wanted += ("file_name",) if kind == "image_text" else ()
    if missing := [name for name in wanted if name not in cells.columns]:
        raise InputError(f"{path}: has no column {', '.join(missing)}; must have {', '.join(wanted)}")
    if kind != "tabular" and text is None:
        raise InputError(f"text is missing; must name the column of texts (available: {', '.join(cells.columns)})")
    places = tuple(f"{path}:{line}" for line in cells.lines.tolist())
    if kind == "tabular":
        try:
            features = np.array([[float(cell) for cell in cells.columns[name]] for name in columns], dtype=np.float32).T
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {error}; must be numbers in {', '.join(columns)}") from None
        return _unlabelled(kind, classes, places, features=features)
    texts = tuple(str(cell or "") for cell in cells.columns[str(text)])
    if kind == "text":
        return _unlabelled(kind, classes, places, texts=texts)
    images = tuple(_listed(path, str(cell)) for cell in cells.columns["file_name"])
    return _unlabelled(kind, classes, places, images=images, texts=texts)


def _listed(path: Path, name: str) -> Path:
    found = inside(path.parent, name)
    if found is None:
        raise InputError(f"{path}: {name!r} is outside {path.parent}; must be inside it")
    return found


def _images(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    found = tuple(sorted(one for one in path.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES))
    if not found:
        raise InputError(f"{str(path)!r} holds no images; must be one, or a folder with {', '.join(IMAGE_SUFFIXES)}")
    return found


def _unlabelled(
    kind: str,
    classes: tuple[str, ...],
    places: tuple[str, ...],
    *,
    images: tuple[Path, ...] | None = None,
    texts: tuple[str, ...] | None = None,
    features: np.ndarray | None = None,
) -> Examples:
    n = len(places)
    return Examples(kind, classes, np.zeros(n, np.int64), places, np.zeros(n, bool), images, texts, features)
