"""What a language model says, and how fast it says it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import torch

from trainables.lora.text.base import TextBase
from trainables.lora.text.examples import Example, Turn
from trainables.lora.text.tokens import prompt_of

SPEED_TOKENS = 24
SPEED_ROUNDS = 3


@torch.no_grad()
def complete(
    base: TextBase,
    prompts: Sequence[str],
    autocast: AbstractContextManager[object],
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """One completion a prompt (text with its special tokens written out): the likeliest words at temperature 0, else
    drawn by seed. The same whatever else is asked in the same call."""
    found = []
    with autocast, torch.random.fork_rng(devices=[]):
        for prompt in prompts:
            torch.manual_seed(seed)
            ids = _ids(base, prompt)
            drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
            said = base.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, pad_token_id=base.pad,
                **(drawn or {"do_sample": False}),
            )  # fmt: skip
            found.append(base.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return found


def asked(base: TextBase, prompt: str, template: str | None) -> str:
    """A person's prompt as a model that was trained with a template is shown it: a user's turn. None: the tokenizer's
    chat template where it has one, else the prompt as it stands."""
    chosen = template or ("chat" if base.tokenizer.chat_template else "none")
    if chosen == "none":
        return prompt
    return prompt_of(Example((Turn("user", prompt, False),)), base.tokenizer, chosen)


@torch.no_grad()
def tokens_per_second(base: TextBase, prompt: str, autocast: AbstractContextManager[object]) -> float:
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


def _ids(base: TextBase, prompt: str) -> torch.Tensor:
    """Token ids (1, length); what the prompt spells out of special tokens is not added twice."""
    begin = base.tokenizer.bos_token
    spelt = bool(begin) and prompt.startswith(begin)
    ids: Any = base.tokenizer(prompt, return_tensors="pt", add_special_tokens=not spelt).input_ids
    if ids.shape[1] == 0:
        ids = torch.tensor([[base.pad]])
    tensor: torch.Tensor = ids.to(base.device)
    return tensor
