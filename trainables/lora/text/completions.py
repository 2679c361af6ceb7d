"""What a language model says, and how fast it says it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from trainables.lora.text.base import TextBase
from trainables.lora.text.examples import Example, Turn
from trainables.lora.text.tokens import prompt_of

SPEED_TOKENS = 24
SPEED_ROUNDS = 3


@dataclass(frozen=True)
class Prompt:
    """What a model is shown, special tokens written out. `complete`: all of them are, and the tokenizer adds none."""

    text: str
    complete: bool

    @classmethod
    def asking(cls, base: TextBase, question: str, template: str | None = None) -> Prompt:
        """A person's question as a model that was trained with a template is shown it: a user's turn. None: the
        tokenizer's chat template where it has one, else the question as it stands."""
        chosen = template or ("chat" if base.tokenizer.chat_template else "none")
        if chosen == "none":
            return cls(question, False)
        return cls(prompt_of(Example((Turn("user", question, False),)), base.tokenizer, chosen), chosen == "chat")


@torch.no_grad()
def complete(
    base: TextBase,
    prompts: Sequence[Prompt],
    autocast: AbstractContextManager[object],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """One completion a prompt: the likeliest words at temperature 0, else drawn by seed. The same whatever else is
    asked in the same call."""
    found = []
    with autocast, torch.random.fork_rng(devices=[]):
        for prompt in prompts:
            torch.manual_seed(seed)
            ids = _ids(base, prompt)
            drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
            found += _said(base, ids, max_new_tokens, **(drawn or {"do_sample": False}))
    return found


@torch.no_grad()
def complete_each(
    base: TextBase,
    prompts: Sequence[Prompt],
    autocast: AbstractContextManager[object],
    *,
    adapters: int,
    max_new_tokens: int = 64,
) -> list[list[str]]:
    """The likeliest completions of several adapters, all of which write at once: for each adapter one a prompt. A row
    of the model's batch is an adapter's."""
    with autocast:
        said = [
            _said(base, _ids(base, prompt).expand(adapters, -1), max_new_tokens, do_sample=False) for prompt in prompts
        ]
    return [[texts[place] for texts in said] for place in range(adapters)]


def _said(base: TextBase, ids: torch.Tensor, max_new_tokens: int, **how: Any) -> list[str]:
    """What stands behind each row of ids (rows, length), up to its end."""
    said = base.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, pad_token_id=base.pad, **how
    )
    ends = base.model.generation_config.eos_token_id
    known = {ends} if isinstance(ends, int) else set(ends or ())
    found = []
    for row in said[:, ids.shape[1] :].tolist():  # who has ended is padded until the others have
        stop = next((place for place, token in enumerate(row) if token in known), len(row))
        found.append(base.tokenizer.decode(row[:stop], skip_special_tokens=True).strip())
    return found


@torch.no_grad()
def tokens_per_second(base: TextBase, prompt: Prompt, autocast: AbstractContextManager[object]) -> float:
    """Speed of writing, one text at a time: tokens after the prompt's, through the adapter as it is attached."""
    ids = _ids(base, prompt)
    rounds = []
    with autocast:
        for _ in range(SPEED_ROUNDS):
            started = time.perf_counter()
            base.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=SPEED_TOKENS, min_new_tokens=SPEED_TOKENS,
                do_sample=False, pad_token_id=base.pad,
            )  # fmt: skip
            if base.device.type == "cuda":
                torch.cuda.synchronize(base.device)
            rounds.append(time.perf_counter() - started)
    return SPEED_TOKENS / median(rounds)


def _ids(base: TextBase, prompt: Prompt) -> torch.Tensor:
    """Token ids (1, length)."""
    ids: torch.Tensor = base.tokenizer(
        prompt.text, return_tensors="pt", add_special_tokens=not prompt.complete
    ).input_ids  # fmt: skip
    if ids.shape[1] == 0:
        ids = torch.tensor([[base.pad]])
    return ids.to(base.device)
