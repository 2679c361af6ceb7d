"""The caption of an image as one training step sees it."""

from __future__ import annotations

import random

from trainables.lora.dataset_settings import Showing


def shown_caption(caption: str, showing: Showing, rng: random.Random) -> str:
    """The caption left out, or its tags shuffled and thinned out behind the kept ones; else as it is."""
    if showing.caption_dropout and rng.random() < showing.caption_dropout:
        return ""
    if not varies(showing):
        return caption
    tags = [tag.strip() for tag in caption.split(showing.caption_separator)]
    kept, rest = tags[: showing.keep_tokens], tags[showing.keep_tokens :]
    if showing.shuffle_caption:
        rng.shuffle(rest)
    if showing.caption_tag_dropout:
        rest = [tag for tag in rest if rng.random() >= showing.caption_tag_dropout]
    return ", ".join(kept + rest)


def varies(showing: Showing) -> bool:
    """Whether the caption differs from step to step other than by being left out."""
    return showing.shuffle_caption or showing.caption_tag_dropout > 0
