"""The `data` section of a study file: labelled examples of a classifier, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from trainables.classification.settings import ANY, ARCHITECTURES
from trainables.classification.source import DataSource
from tune_lora.closed import Closed

DEMO_SHAPES = "demo-shapes"


class ClassifierSpec(Closed):
    """A folder of images (a subfolder a class, or a metadata.jsonl or .csv), a listing, a table, or ``demo-shapes``."""

    path: str = Field(description="a folder, a listing, a table, or demo-shapes")
    kind: Literal["auto", "image", "image_text", "text", "tabular"] = Field("auto", description="by what is there")
    label: str = Field("label", description="the column of the class; folders need none")
    text: str | None = Field(None, description="the column of a text; images that have one are image_text")
    features: tuple[str, ...] = Field(("auto",), description="columns of a table; auto: all numbers that are no label")
    group: str | None = Field(None, description="a column for group-robust training and grouped folds")
    grouped_folds: bool = Field(False, description="rows of one group are judged together, never learnt from as well")
    validation: str | None = Field(None, description="rows of their own to judge by; null: a share is held out")
    held_out_share: float = Field(0.2, gt=0, le=0.5, description="stratified")
    on_bad: Literal["error", "drop"] = Field("error", description="rows that cannot be read: list them, or drop them")
    weights: str | dict[str, str] | None = Field(
        None, description="state dict of a backbone (.pth, .safetensors), or one an architecture"
    )
    normalisation: Literal["auto", "rows", "imagenet"] = Field(
        "auto", description="of images: by the training rows, or as torchvision's weights were trained"
    )

    @field_validator("features", mode="before")
    @classmethod
    def one_may_stand_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("weights")
    @classmethod
    def weights_are_of_known_architectures(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        unknown = [name for name in value if name not in ARCHITECTURES] if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"got {unknown[0]!r}; must be one of {', '.join(ARCHITECTURES)}")
        return value

    @model_validator(mode="after")
    def grouped_folds_have_a_group(self) -> ClassifierSpec:
        if self.grouped_folds and self.group is None:
            raise ValueError("grouped_folds: got true without a group; must be false, or group name a column")
        return self

    def source(self, path: Path) -> DataSource:
        """What the trainer reads at a path (this one's, once it is known where the demo's lies)."""
        return DataSource(
            path=path,
            kind=self.kind,
            label=self.label,
            text=self.text,
            features=self.features,
            group=self.group,
            grouped_folds=self.grouped_folds,
            validation=None if self.validation is None else Path(self.validation).expanduser().absolute(),
            held_out_share=self.held_out_share,
            on_bad=self.on_bad,
        )

    def weights_by_architecture(self) -> dict[str, str]:
        """Paths of state dicts; ``*`` is whichever architecture is trained."""
        if self.weights is None:
            return {}
        given = self.weights if isinstance(self.weights, dict) else {ANY: self.weights}
        return {name: str(Path(path).expanduser().absolute()) for name, path in given.items()}

    def with_paths(self, found: Callable[[str], str]) -> ClassifierSpec:
        """The same with each path as `found` has it."""
        weights = self.weights
        if weights is not None:
            weights = (
                {one: found(path) for one, path in weights.items()} if isinstance(weights, dict) else found(weights)
            )
        return self.model_copy(
            update={
                "path": self.path if self.path == DEMO_SHAPES else found(self.path),
                "validation": None if self.validation is None else found(self.validation),
                "weights": weights,
            }
        )
