"""Examples split into training and validation, tokenised once for each dataset, tokenizer and node, never stale."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from trainables.lora.files import write_whole
from trainables.lora.text import examples as reading
from trainables.lora.text.examples import Example
from trainables.lora.text.settings import TextSettings
from trainables.lora.text.tokens import Tokens, encode_all, prompt_of, shortened, windows
from trainables.node_lock import only_one
from trainables.paths import cache_folder
from tune_lora.errors import InputError

_VERSION = "1"  # raise it when what is stored for the same key changes
_PROMPTS = 8


@dataclass(frozen=True)
class Split:
    """Examples to learn and examples to judge by. `left_out` were held out, but are more than the limit."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Counts:
    """What reading made of the training examples. `cut` examples were longer than `max_length`, and lost `cut_tokens`
    tokens of which `cut_learnt` would have been learnt."""

    examples: int
    tokens: int
    learnt: int
    cut: int
    cut_tokens: int
    cut_learnt: int

    def notes(self, max_length: int) -> list[str]:
        """What a person should know, one sentence each."""
        told = [f"{self.examples} training examples, {self.tokens} tokens, {self.learnt} of them learnt"]
        if self.cut:
            share = self.cut_learnt / max(1, self.learnt + self.cut_learnt)
            told.append(
                f"{self.cut} of {self.examples} training examples are longer than max_length {max_length} and were cut "
                f"by {self.cut_tokens} tokens; {self.cut_learnt} of these would have been learnt ({share:.1%})"
            )
        return told


def split(path: Path, settings: TextSettings) -> Split:
    """Reads the data; the split goes by content, so equal examples are on one side and the order of a file is nothing.

    Raises:
        InputErrors: files cannot be read, or hold too little.
    """
    found = reading.load(path, settings)
    if settings.validation is not None:
        held_out = reading.load(Path(settings.validation), settings)
        return _limited(found, held_out, settings.held_out_limit)
    by_content: dict[str, list[Example]] = {}
    for example in found:
        by_content.setdefault(example.digest(), []).append(example)
    if len(by_content) == 1 and found[0].text:
        return _halves_of_a_text(found[0], settings)
    if len(by_content) < 2:
        raise InputError(f"{path}: all examples are the same; must hold two different ones, since one is held out")
    count = min(len(by_content) - 1, max(1, round(len(by_content) * settings.held_out_share)))
    chosen = set(sorted(by_content)[:count])
    train = [example for example in found if example.digest() not in chosen]
    return _limited(train, [by_content[digest][0] for digest in sorted(chosen)], settings.held_out_limit)


def _halves_of_a_text(example: Example, settings: TextSettings) -> Split:
    """Of a single text the end is held out, from the line break that is nearest to the share."""
    text = example.text
    border = round(len(text) * (1 - settings.held_out_share))
    border = text.rfind("\n", 1, border) + 1 or border
    train, held_out = text[:border], text[border:]
    if not train.strip() or not held_out.strip():
        raise InputError("the text is too short to hold a part out; must be longer, or name a validation file")
    return Split((Example(text=train),), (Example(text=held_out),))


def _limited(train: Sequence[Example], held_out: Sequence[Example], limit: int) -> Split:
    kept = sorted(held_out, key=Example.digest)[:limit]
    return Split(tuple(train), tuple(kept), len(held_out) - len(kept))


@dataclass(frozen=True)
class TextData:
    """Tokenised data. `prompts` ask for an answer of held-out examples, as text."""

    train: tuple[Tokens, ...]
    held_out: tuple[Tokens, ...]
    prompts: tuple[str, ...]
    counts: Counts
    template: str


def tokenise(found: Split, tokenizer: Any, settings: TextSettings) -> TextData:
    """Tokens of a split, from the cache where they are in it.

    Raises:
        InputErrors: the chat template cannot be used, or nothing is left to learn.
    """
    template = chosen_template(found.train, tokenizer, settings.template)
    base = f"{_VERSION}|{tokenizer_identity(tokenizer)}|{template}|{settings.trained}|{settings.max_length}"

    def made(examples: Sequence[Example]) -> tuple[tuple[Tokens, ...], Counts]:
        digest = hashlib.sha256(base.encode())
        for example in examples:
            digest.update(bytes.fromhex(example.digest()))
        path = cache_folder() / "tokens" / f"{digest.hexdigest()}.safetensors"
        with only_one(path):
            return _cached(path, lambda: _encoded(examples, tokenizer, template, settings))

    train, counts = made(found.train)
    held_out, _ = made(found.held_out)
    if not train or not held_out:
        raise InputError("no example has a token to learn; must have answers that tokens come before")
    prompts = tuple(prompt_of(example, tokenizer, template) for example in found.held_out[:_PROMPTS])
    return TextData(train, held_out, prompts, counts, template)


def chosen_template(examples: Sequence[Example], tokenizer: Any, asked: str) -> str:
    """The template that ``auto`` stands for.

    Raises:
        InputError: chat is asked for and the tokenizer has no template.
    """
    if asked == "chat" and not tokenizer.chat_template:
        raise InputError("template: got chat, but the tokenizer has no chat template; must be plain, none or auto")
    if asked != "auto":
        return asked
    if tokenizer.chat_template:
        return "chat"
    return "none" if all(example.joined or example.text for example in examples) else "plain"


def tokenizer_identity(tokenizer: Any) -> str:
    """SHA-256 of all that decides which ids a text gets."""
    told = [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.eos_token]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _encoded(
    examples: Iterable[Example], tokenizer: Any, template: str, settings: TextSettings
) -> tuple[tuple[Tokens, ...], Counts]:
    kept: list[Tokens] = []
    cut = cut_tokens = cut_learnt = 0
    for example in examples:
        for whole in encode_all(example, tokenizer, template, settings.trained):
            if example.text:
                pieces = windows(whole, settings.max_length)
            else:
                pieces = [shortened(whole, settings.max_length)]
                lost = len(whole) - len(pieces[0])
                cut, cut_tokens = cut + bool(lost), cut_tokens + lost
                cut_learnt += int(whole.learnt.sum() - pieces[0].learnt.sum())
            kept += [piece for piece in pieces if piece.learnt[1:].any()]
    tokens, learnt = sum(map(len, kept)), sum(int(one.learnt[1:].sum()) for one in kept)
    return tuple(kept), Counts(len(kept), tokens, learnt, cut, cut_tokens, cut_learnt)


def _cached(path: Path, make: Callable[[], tuple[tuple[Tokens, ...], Counts]]) -> tuple[tuple[Tokens, ...], Counts]:
    """What was stored under the path, else what is made and then stored. A damaged entry is made again."""
    if path.is_file():
        try:
            stored = load_file(path)
            counts = Counts(*(int(value) for value in stored["counts"]))
            borders = stored["borders"]
            parts = [(int(a), int(b)) for a, b in itertools.pairwise(borders)]
            return tuple(Tokens(stored["ids"][a:b], stored["learnt"][a:b]) for a, b in parts), counts
        except (SafetensorError, KeyError, OSError, TypeError):
            path.unlink(missing_ok=True)
    kept, counts = make()
    if kept:
        arrays = {
            "ids": np.concatenate([one.ids for one in kept]),
            "learnt": np.concatenate([one.learnt for one in kept]),
            "borders": np.cumsum([0, *map(len, kept)], dtype=np.int64),
            "counts": np.array(list(asdict(counts).values()), dtype=np.int64),
        }
        write_whole(path, lambda scratch: save_file(arrays, scratch))
    return kept, counts
