"""How text data is read and shown to a model. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FORMATS = ("auto", "messages", "prompt_completion", "instruction", "text")
TEMPLATES = ("auto", "chat", "plain", "none")
TRAINED = ("answers", "all")
QUANTIZATIONS = ("none", "int8", "nf4")


@dataclass(frozen=True)
class TextSettings:
    """How a file of examples becomes tokens.

    `format` is what its columns mean; ``auto`` tells from their names. `fields` renames columns:
    ``{messages: dialogue}`` reads the column ``dialogue`` as ``messages``. `template` puts turns into words: the
    tokenizer's ``chat`` template, a ``plain`` one, or ``none``, which joins prompt and completion as they stand;
    ``auto`` is chat where the tokenizer has a template. `trained` says which tokens count in the loss: ``answers`` or
    ``all``. `max_length` is in tokens; `packing` puts several examples into one row of that length. Of the examples a
    share is held out for validation, unless `validation` names a file; at most `held_out_limit` of them are used.
    """

    format: str = "auto"
    fields: Mapping[str, str] = field(default_factory=dict)
    template: str = "auto"
    trained: str = "answers"
    max_length: int = 1024
    packing: bool = False
    validation: str | None = None
    held_out_share: float = 0.1
    held_out_limit: int = 256
