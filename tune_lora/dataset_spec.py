"""The `dataset` section of a study file: captioned images, and how they are shown."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from tune_lora.closed import Closed

DEMO_CHARACTER = "demo-character"
LARGEST_SIDE = 2048


class DatasetSpec(Closed):
    """Captioned images. `path` is a folder, a kohya dataset TOML, or ``demo-character``; what is left out here is taken
    from the TOML, and what is given here holds for all of its subsets."""

    path: str = Field(description="a folder, a dataset file of kohya's scripts, or demo-character")
    resolution: int | tuple[int, int] | None = Field(None, description="pixels: of a square's side, or [width, height]")
    batch_size: int | None = Field(None, ge=1, description="pictures a step")
    enable_bucket: bool | None = Field(None, description="train each image in the bucket nearest to its aspect ratio")
    min_bucket_reso: int | None = Field(None, ge=16, multiple_of=8, description="shortest side of a bucket")
    max_bucket_reso: int | None = Field(None, ge=16, multiple_of=8, description="longest side of a bucket")
    bucket_reso_steps: int | None = Field(None, ge=8, multiple_of=8, description="sides are multiples of this")
    bucket_no_upscale: bool | None = Field(None, description="small images keep their size, cut to the steps")
    repeats: int | None = Field(None, ge=1, description="how often an epoch shows each image")
    flip: bool | None = Field(None, description="show images mirrored, too")
    caption_extension: str | None = Field(None, description="of caption files; null: .txt")
    caption_prefix: str | None = Field(None, description="put before every caption")
    caption_suffix: str | None = Field(None, description="put behind every caption")
    class_tokens: str | None = Field(None, description="the caption of images that have none")
    caption_separator: str | None = Field(None, description="between the tags of a caption")
    shuffle_caption: bool | None = Field(None, description="tags in another order at every step")
    keep_tokens: int | None = Field(None, ge=0, description="tags that stay in front")
    caption_dropout: float | None = Field(None, ge=0, le=1, description="share of steps without the caption")
    caption_tag_dropout: float | None = Field(None, ge=0, le=1, description="share of tags left out in a step")
    held_out_share: float = Field(0.125, gt=0, lt=1, description="kept out of training: validation loss and identity")

    @field_validator("resolution", mode="before")
    @classmethod
    def resolution_is_one_side_or_two(cls, value: Any) -> Any:
        sides = value if isinstance(value, list | tuple) else [value]
        if value is not None and not (len(sides) in (1, 2) and all(_is_side(side) for side in sides)):
            raise ValueError(f"got {value!r}; must be a multiple of 8 from 16 to {LARGEST_SIDE}, or a pair of them")
        return sides[0] if len(sides) == 1 else value

    def settings(self) -> dict[str, Any]:
        """What was said about how the images are shown."""
        return self.model_dump(exclude_none=True, exclude={"path", "held_out_share"})


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 16 <= value <= LARGEST_SIDE and value % 8 == 0
