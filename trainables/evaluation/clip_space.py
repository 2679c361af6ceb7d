"""The joint space of images and texts: consistency with prompts, and likeness to references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import CLIPTextModel

from trainables.evaluation import clip_files
from trainables.evaluation.pixels import Images, as_tensor
from trainables.tiny_sd import WEIGHTS
from tune_lora.errors import InputError

_BATCH = 32


@dataclass(frozen=True)
class ClipSpace:
    """A CLIP with what it expects of its input.

    Images are resized to `size` pixels and normalised by `mean` and `std`. `calibrated` is whether its cosines are on
    the scale of ViT-B/32; `note` says which weights these are.
    """

    model: open_clip.CLIP
    tokenize: Callable[[list[str]], torch.Tensor]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    calibrated: bool
    note: str

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def images(self, images: Images) -> np.ndarray:
        """Unit vectors (N, D) of images (N, H, W, 3)."""
        parts = [self._encode(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return torch.cat(parts).cpu().numpy()

    def _encode(self, images: Images) -> torch.Tensor:
        pixels = _square(as_tensor(images, self.device), self.size)
        mean, std = (torch.tensor(values, device=self.device)[:, None, None] for values in (self.mean, self.std))
        features: torch.Tensor = self.model.encode_image((pixels - mean) / std, normalize=True)
        return features

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) of texts; longer ones are cut at the context length."""
        distinct = list(dict.fromkeys(texts))
        parts = [distinct[start : start + _BATCH] for start in range(0, len(distinct), _BATCH)]
        encoded = [self.model.encode_text(self.tokenize(part).to(self.device), normalize=True) for part in parts]
        rows = dict(zip(distinct, torch.cat(encoded).cpu().numpy(), strict=True))
        return np.stack([rows[text] for text in texts])


def consistency(images: np.ndarray, texts: np.ndarray) -> float:
    """Mean cosine of each image with its text; both (N, D), of unit length."""
    return float((images * texts).sum(axis=1, dtype=np.float64).mean())


def identity(images: np.ndarray, references: np.ndarray) -> float:
    """Mean over images (N, D) of the mean cosine with all references (R, D); vectors of unit length."""
    return float((images.astype(np.float64) @ references.astype(np.float64).mean(axis=0)).mean())


def load_clip(path: Path | None = None, fallback: Path = WEIGHTS, device: torch.device | str = "cpu") -> ClipSpace:
    """ViT-B/32 from `path`, else from the usual caches, else the miniature CLIP of the pipeline folder `fallback`.

    Raises:
        InputError: `path` holds no ViT-B/32 weights; or nothing was found and the miniature is not there either.
    """
    source, target = path or clip_files.cached(), torch.device(device)
    if source is None:
        return _miniature(fallback, target)
    model = clip_files.read_vit_b32(source).requires_grad_(False).to(target)
    return ClipSpace(
        model=model,
        tokenize=open_clip.get_tokenizer("ViT-B-32"),
        size=224,
        mean=open_clip.OPENAI_DATASET_MEAN,
        std=open_clip.OPENAI_DATASET_STD,
        calibrated=True,
        note=f"CLIP: ViT-B/32 of {source.name}",
    )


def _miniature(folder: Path, device: torch.device) -> ClipSpace:
    from trainables.tiny_sd import architecture

    tower, text = folder / "clip" / "image_tower.safetensors", folder / "text_encoder" / "model.safetensors"
    if not (tower.is_file() and text.is_file()):
        raise InputError(f"no CLIP: no ViT-B/32 weights given or found, and {folder} does not hold the miniature one")
    encoder = CLIPTextModel(architecture.text_config())
    prefix = "text_model." if hasattr(encoder, "text_model") else ""
    stored = {name.removeprefix("text_model."): value.float() for name, value in load_file(text).items()}
    encoder.load_state_dict({f"{prefix}{name}": value for name, value in stored.items()}, strict=False)
    model = architecture.clip_from_parts(encoder, {name: value.float() for name, value in load_file(tower).items()})
    return ClipSpace(
        model=model.requires_grad_(False).to(device),
        tokenize=open_clip.SimpleTokenizer(context_length=architecture.CONTEXT_LENGTH),
        size=architecture.IMAGE_SIZE,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        calibrated=False,
        note="CLIP: the miniature of tiny-sd, no ViT-B/32 weights found",
    )


def _square(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """(N, 3, H, W) resized so that the shorter side is `size`, then cut to the middle square."""
    height, width = pixels.shape[-2:]
    if (height, width) == (size, size):
        return pixels
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    resized = F.interpolate(pixels, shape, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return resized[..., top : top + size, left : left + size]
