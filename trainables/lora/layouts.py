"""Which Stable Diffusion a single checkpoint file holds, told from the names and shapes of its tensors. Loads no
torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]
"""Every tensor of a file: its name and its shape."""

UNET = "model.diffusion_model."
FIRST_CONVOLUTION = UNET + "input_blocks.0.0.weight"
LATENT_CHANNELS = 4
CHECKPOINT = (
    "must be a checkpoint of Stable Diffusion 1.x, 2.x or SDXL base, or a pipeline's folder in diffusers' layout"
)
V_PREDICTION_MARK = "v_pred"
"""An empty tensor by which fine-tunes of SDXL say that they predict velocities."""


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints. `config` names the shipped configuration, `marks` the beginnings of names by what they
    belong to."""

    title: str
    config: str
    marks: Mapping[str, str]


_COMMON = {"UNet": UNET, "VAE": "first_stage_model."}
SD1 = Layout("Stable Diffusion 1.x", "sd15", _COMMON | {"text encoder": "cond_stage_model.transformer.text_model."})
SD2 = Layout("Stable Diffusion 2.x", "sd21", _COMMON | {"text encoder": "cond_stage_model.model."})
SDXL = Layout(
    "Stable Diffusion XL",
    "sdxl",
    _COMMON
    | {
        "first text encoder": "conditioner.embedders.0.transformer.text_model.",
        "second text encoder": "conditioner.embedders.1.model.",
    },
)
LAYOUTS = (SD1, SD2, SDXL)
_OTHERS = {
    "Stable Diffusion 3": (UNET + "joint_blocks.", "joint_blocks."),
    "Flux": (UNET + "double_blocks.", "double_blocks."),
    "the SDXL refiner": ("conditioner.embedders.0.model.",),
    "a LoRA": ("lora_unet_", "lora_te", "lycoris_"),
}
_PURPOSES = {9: "inpainting", 8: "image editing", 7: "upscaling", 5: "depth"}


def layout_of(shapes: Shapes) -> Layout | None:
    """The family whose parts are all there; None where there is no such family."""
    return next((layout for layout in LAYOUTS if not _absent(shapes, layout)), None)


def mistake_of(shapes: Shapes) -> str | None:
    """Why no LoRA of this file can be trained here, as a clause that follows the file's name; None where one can."""
    if other := _other(shapes):
        return f"is {other}, not a base model; {CHECKPOINT}" if other == "a LoRA" else f"is {other}; {CHECKPOINT}"
    layout = layout_of(shapes)
    if layout is None:
        nearest = min(LAYOUTS, key=lambda one: len(_absent(shapes, one)))
        return f"has no {' and no '.join(_absent(shapes, nearest))} of {nearest.title}; {CHECKPOINT}"
    channels = shapes.get(FIRST_CONVOLUTION, (0, LATENT_CHANNELS))[1]
    return channels_mistake(channels)


def channels_mistake(channels: int) -> str | None:
    """Why a UNet with so many input channels is none of ours; None where it is."""
    if channels == LATENT_CHANNELS:
        return None
    purpose = _PURPOSES.get(channels, "another task")
    return f"is made for {purpose} ({channels} input channels); must be a text-to-image model (4 input channels)"


def _other(shapes: Shapes) -> str | None:
    if any(".lora_" in name for name in shapes):
        return "a LoRA"
    for title, prefixes in _OTHERS.items():
        if any(name.startswith(prefixes) for name in shapes):
            return title
    return None


def _absent(shapes: Shapes, layout: Layout) -> list[str]:
    return [part for part, prefix in layout.marks.items() if not any(name.startswith(prefix) for name in shapes)]
