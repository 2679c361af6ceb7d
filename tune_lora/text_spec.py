"""The `text` section of a study file: the examples of a language model's LoRA, and how they are shown to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from trainables.lora.text.settings import TextSettings
from tune_lora.closed import Closed

DEMO_LOGBOOK = "demo-logbook"


class TextSpec(Closed):
    """Instruction data, conversations or plain text. `path` is a .jsonl, .json, .parquet, .csv, .tsv or .txt file, or
    ``demo-logbook``."""

    path: str = Field(description="a file of examples, or demo-logbook")
    validation: str | None = Field(None, description="a file of its own to judge by; null: a share is held out")
    held_out_share: float = Field(0.1, gt=0, lt=1, description="kept out of training, to judge by")
    held_out_limit: int = Field(256, ge=1, description="held-out examples that are used at most")
    format: Literal["auto", "messages", "prompt_completion", "instruction", "text"] = Field(
        "auto", description="what the columns mean; auto: by their names"
    )
    fields: dict[str, str] = Field(default_factory=dict, description="{messages: dialogue}: columns by our names")
    template: Literal["auto", "chat", "plain", "none"] = Field(
        "auto", description="how turns become text; auto: the tokenizer's own chat template, else a plain one"
    )
    trained: Literal["answers", "all"] = Field("answers", description="which tokens count in the loss")
    max_length: int = Field(1024, ge=8, description="tokens")
    packing: bool = Field(False, description="several examples in one row; they do not see each other")
    quantization: Literal["none", "int8", "nf4"] = Field("none", description="of the frozen base (QLoRA)")
    report_every: int | None = Field(None, ge=1, description="steps; null: about 20 reports a trial")
    samples: int = Field(4, ge=0, le=8, description="completions that are kept at the end of a trial")

    def settings(self) -> TextSettings:
        """How the examples become tokens."""
        names = TextSettings.__dataclass_fields__
        return TextSettings(**{name: value for name, value in self.model_dump().items() if name in names})

    def with_paths(self, found: Callable[[str], str]) -> TextSpec:
        """The same with each path as `found` has it."""
        validation = None if self.validation is None else found(self.validation)
        return self.model_copy(
            update={"path": self.path if self.path == DEMO_LOGBOOK else found(self.path), "validation": validation}
        )
