"""From an example to token ids, and which of them are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainables.lora.text.examples import Example, Turn
from tune_lora.errors import InputError

_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}
LEAST_PROMPT = 4
"""A prompt that is too long keeps at least a quarter of the length: the answer then loses its end."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of one example, and which of them are learnt, both (length,)."""

    ids: np.ndarray
    learnt: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Tokens:
        """The tokens from `start` to before `stop`."""
        return Tokens(self.ids[start:stop], self.learnt[start:stop])


class RewritingTemplateError(InputError):
    """A chat template renders a turn differently once others follow."""


def encode_all(example: Example, tokenizer: Any, template: str, trained: str = "answers") -> list[Tokens]:
    """Tokens of an example. Where the template renders earlier turns differently (some leave their reasoning out), each
    answer stands in an example of its own, as the last turn that it is when it is given.

    Raises:
        InputError: the template cannot be used at all.
    """
    try:
        return [encode(example, tokenizer, template, trained)]
    except RewritingTemplateError:
        learnt = [index for index, turn in enumerate(example.turns) if turn.trained]
        if len(learnt) == 1:
            raise
    return [encode(_up_to(example, index), tokenizer, template, trained) for index in learnt]


def _up_to(example: Example, last: int) -> Example:
    """The conversation up to an answer, of which that answer alone is learnt."""
    shown = tuple(replace(turn, trained=False) for turn in example.turns[:last])
    return Example((*shown, example.turns[last]))


def encode(example: Example, tokenizer: Any, template: str, trained: str = "answers") -> Tokens:
    """Tokens of a whole example, whatever its length. `template` is chat, plain or none.

    An answer ends with the token that ends a turn, which is learnt too: the model must learn to stop.

    Raises:
        RewritingTemplateError: the chat template does not render turns one after another.
    """
    if example.text:
        return _encode(example.text + (tokenizer.eos_token or ""), [], tokenizer, special=True, learn_all=True)
    if template == "chat":
        text, spans = _by_chat_template(example.turns, tokenizer)
    else:
        text, spans = _plainly(example.turns, tokenizer.eos_token or "", named=template == "plain")
    return _encode(text, spans, tokenizer, special=template != "chat", learn_all=trained == "all")


def prompt_of(example: Example, tokenizer: Any, template: str) -> str:
    """What a model is shown so that it gives the example's first answer, as text; special tokens written out.

    Of a text example its first words.
    """
    if example.text:
        return " ".join(example.text.split()[:8])
    asked = []
    for turn in example.turns:
        if turn.role == "assistant":
            break
        asked.append(turn)
    if template == "chat":
        return _rendered(asked, tokenizer, ask=True)
    text, _ = _plainly(asked, tokenizer.eos_token or "", named=template == "plain")
    return text + (f"{_NAMES['assistant']}:" if template == "plain" else "")


def _encode(text: str, spans: Sequence[tuple[int, int]], tokenizer: Any, *, special: bool, learn_all: bool) -> Tokens:
    found = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    ids = np.asarray(found["input_ids"], dtype=np.int32)
    if learn_all:
        return Tokens(ids, np.ones(len(ids), dtype=bool))
    offsets = np.asarray(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    learnt = np.zeros(len(ids), dtype=bool)
    for start, stop in spans:  # a token that holds any of the answer is learnt; added ones, of no length, are not
        learnt |= (offsets[:, 0] < stop) & (offsets[:, 1] > start) & (offsets[:, 0] < offsets[:, 1])
    return Tokens(ids, learnt)


# --- where the answers stand -----------------------------------------------------------------------------------------


def _by_chat_template(turns: Sequence[Turn], tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as the tokenizer's template renders it, and the span of each answer with its end-of-turn mark:
    what the conversation up to and with the answer has more than the one that asks for it."""
    text = _rendered(turns, tokenizer)
    spans = []
    for index, turn in enumerate(turns):
        if not turn.trained:
            continue
        asked = _rendered(turns[:index], tokenizer, ask=True)
        told = _rendered(turns[: index + 1], tokenizer)
        if not told.startswith(asked) or not text.startswith(told.rstrip()):
            raise RewritingTemplateError(
                "the tokenizer's chat template renders a turn differently once others follow, so answers cannot be "
                "told apart; must be another template (template: plain)"
            )
        # Templates put a line break between turns, which is nobody's answer.
        spans.append((len(asked), len(told.rstrip()) if told.rstrip() != asked.rstrip() else len(told)))
    return text, spans


def _rendered(turns: Sequence[Turn], tokenizer: Any, *, ask: bool = False) -> str:
    from jinja2 import TemplateError

    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    except TemplateError as error:
        raise InputError(f"the tokenizer's chat template refuses an example: {error}") from None
    return text


def _plainly(turns: Sequence[Turn], end: str, *, named: bool) -> tuple[str, list[tuple[int, int]]]:
    """``User: ...``, a blank line, ``Assistant: ...`` and the end mark; unnamed, prompt and completion as they are."""
    text, spans = "", []
    for turn in turns:
        text += f"{_NAMES[turn.role]}:" if named else ""
        start = len(text)
        text += f" {turn.content}" if named else turn.content
        if turn.role == "assistant":
            text += end
        if turn.trained:
            spans.append((start, len(text)))
        text += "\n\n" if named and turn is not turns[-1] else ""
    if named and turns and turns[-1].role != "assistant":
        text += "\n\n"
    return text, spans


# --- what is too long ------------------------------------------------------------------------------------------------


def windows(tokens: Tokens, length: int) -> list[Tokens]:
    """A text in consecutive pieces of at most `length` tokens, nothing lost but a last piece of one token, which
    predicts nothing."""
    pieces = [tokens.part(start, start + length) for start in range(0, len(tokens), length)]
    return [piece for piece in pieces if len(piece) > 1]


def shortened(tokens: Tokens, length: int) -> Tokens:
    """An example that is too long, cut to `length` tokens so that its answer is kept: the prompt loses its beginning,
    but never more than leaves it a quarter of the length; what is still too long then loses its end."""
    if len(tokens) <= length:
        return tokens
    first = int(np.argmax(tokens.learnt))
    prompt = min(first, max(length - (len(tokens) - first), length // LEAST_PROMPT))
    return tokens.part(first - prompt, first - prompt + length)
