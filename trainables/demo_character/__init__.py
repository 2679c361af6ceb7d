"""The demo's character: a round creature drawn by code, with views, expressions and captions.

Needs numpy and Pillow only.
"""

from trainables.demo_character.dataset import EXPRESSIONS, VIEWS, Pose, caption, poses, write_dataset
from trainables.demo_character.render import draw

VERSION = 1
"""Grows whenever the same arguments draw other pictures, so that a cache of them knows."""

__all__ = ["EXPRESSIONS", "VERSION", "VIEWS", "Pose", "caption", "draw", "poses", "write_dataset"]
