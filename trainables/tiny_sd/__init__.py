"""tiny-sd: a Stable Diffusion pipeline in miniature, trained and shipped with the project."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the shipped pipeline in diffusers' layout; ``clip/`` inside it holds the image tower of the CLIP."""

__all__ = ["WEIGHTS"]
