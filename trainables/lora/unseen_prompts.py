"""Prompts that a study has not been judged by, made of what its captions say: who is shown, and from where, and how.

Pure: the same captions and the same known prompts give the same list, and a seed the same choice out of it.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence

VIEWS = (
    "frontal view", "three-quarter view", "side view", "view from above", "view from below", "back view",
    "close-up of the face", "full body", "looking up", "looking to the left", "looking to the right",
    "three-quarter view from the right",
)  # fmt: skip
"""Words for the view angle, beside those that captions use (SPEC.md section 3)."""
EXPRESSIONS = (
    "happy smile", "concerned expression", "surprised expression", "sleepy expression", "angry expression", "winking",
    "big laugh", "sad expression", "shy smile", "crying", "neutral expression", "proud smile", "confused expression",
    "bored expression",
)  # fmt: skip
"""Words for the expression."""
_OPEN = frozenset((*VIEWS, *EXPRESSIONS))
"""What a prompt may say in another way, also where all captions say the same."""
_COMMON = 0.8
"""Share of the captions from which on words are part of all of them: the subject's name, the style."""


def unseen(captions: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Prompts in the form of the captions, none of which is a caption or one of the `known` prompts.

    The subject and the style are what nearly all captions have in common; between them stand a view and an expression,
    the captions' own words first. Letter case, spaces and the order of the parts do not make a prompt another one.
    Never empty: with the subject alone there are still views and expressions.
    """
    parts = [_parts(caption) for caption in captions]
    subject, style = ([part for part in found if part.lower() not in _OPEN] for found in _in_common(parts))
    seen = {_key(text) for text in (*captions, *known)}
    shared = {*subject, *style}
    own = list(dict.fromkeys(part for row in parts for part in row if part not in shared))
    middles = itertools.chain(
        itertools.product(_some_of(own, VIEWS), _some_of(own, EXPRESSIONS)), itertools.product(VIEWS, EXPRESSIONS)
    )
    made = (", ".join([*subject, *middle, *style]) for middle in middles)
    return tuple({_key(text): text for text in made if _key(text) not in seen}.values())


def chosen(prompts: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` of the prompts by seed, none twice before all are used."""
    rng = random.Random(f"{seed}:prompts")
    found: list[str] = []
    while len(found) < count:
        found += rng.sample(list(prompts), min(len(prompts), count - len(found)))
    return tuple(found)


def _parts(caption: str) -> list[str]:
    return [part for text in caption.split(",") if (part := text.strip())]


def _key(text: str) -> frozenset[str]:
    return frozenset(" ".join(part.lower().split()) for part in _parts(text))


def _in_common(parts: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Parts that nearly all captions have: those before what differs, and those behind it."""
    if not parts:
        return [], []
    counts = Counter(part for row in parts for part in set(row))
    usual = {part for part, count in counts.items() if count >= _COMMON * len(parts)}
    model = max(parts, key=lambda row: (sum(part in usual for part in row), -len(row)))
    if all(part in usual for part in model):  # nothing differs: the name stands first
        return list(model[:1]), list(model[1:])
    first = next(place for place, part in enumerate(model) if part not in usual)
    before = [part for part in model[:first] if part in usual] or _first_words(parts)
    return before, [part for part in model[first:] if part in usual]


def _first_words(parts: Sequence[Sequence[str]]) -> list[str]:
    """The words that all captions begin with, as prose has them: ``bobo sits on a chair``, ``bobo laughs``."""
    rows = [row[0].split() for row in parts if row]
    alike = itertools.takewhile(lambda words: len(set(words)) == 1, zip(*rows, strict=False))
    words = [words[0] for words in alike]
    return [" ".join(words)] if words and words != ["a"] else []


def _some_of(own: Sequence[str], known: Sequence[str]) -> list[str]:
    """The captions' own words among those that are known to be of a kind."""
    return [part for part in own if part.lower() in known]
