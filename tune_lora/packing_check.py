"""Whether the trials of a study can share a base at all, as far as that is known before one is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from search_spaces.space import Space
from trainables.protocol import Packing, Trainer
from tune_lora.spec import StudySpec

_DROPOUTS = ("network_dropout", "lora_dropout")


def obstacles(spec: StudySpec, space: Space, trainer: Trainer) -> Iterator[str]:
    """Why no two trials of a study can share a base, one clause each; none where that is not known yet."""
    if not isinstance(trainer, Packing):
        yield f"the trainer {spec.trainer} trains each trial by itself"
        return
    common = ({"quantization": spec.text.quantization} if spec.text is not None else {}) | dict(space.fixed)
    if common.get("quantization") == "int8":
        yield "quantization int8 decides over all rows of a batch which values eight bits leave out"
    if common.get("gradient_checkpointing") is True:
        for name in _DROPOUTS:
            share = common.get(name)
            if isinstance(share, int | float) and share > 0:
                yield f"{name} {share:g} with gradient_checkpointing would not draw the same masks twice"


def mistakes(spec: StudySpec, space: Space, trainer: Trainer) -> Iterator[str]:
    """What is wrong with a number of trials that share a base; with ``auto`` they train one by one instead."""
    if isinstance(asked := spec.resources.packing, int):
        for why in obstacles(spec, space, trainer):
            yield f"resources.packing: got {asked}, but {why}; must be off, or auto to share where that is possible"
