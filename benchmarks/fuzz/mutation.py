"""How a valid input is spoilt: a document node by node, a file byte by byte. Hypothesis draws, so that what it finds
can be drawn again and made smaller."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Place = tuple[Any, Any]
"""A mapping or a list, and one of its keys."""


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


NUMBERS = (
    0, -1, 1, 2, 7, 2**31, 2**63, 2**64 + 1, -(2**63) - 1, 10**30, 10**400, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, -1e308,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "a\nb", "a\r\nb", "\u2028", "\x1b[31mred", "\u202eevil", "\0", "🦜", "ﬁ", "..", "../..",
    "/", "/etc/passwd",
    "~", "~nobody-at-all/x", "~\0", "x" * 600, "x" * 20_000, "y\n" * 300, "1e-4", "1e400", "nan",
    "null", "true", "%s{}",
    "{0}", "$HOME", "${HOME}", "*", "a.b.c", ".", "a" * 300 + ".yaml", "http://[", "sqlite://", "a:b:c", "mod:func",
    "\ud7ff\uffff", "int(1)", "2**2**2**2**2**2", "9**9**9**9", "'a'*10**9", "a and", "(" * 300,
    "not " * 3000 + "1", "1/0",
    "learning_rate > 'a'", "network_dim", "lambda: 1", "__import__('os')", "[].__class__", "x.y.z", "-" * 500 + "1",
)  # fmt: skip
WORDS = (
    "auto", "none", "off", "tpe", "random", "grid", "gp", "nsgaii", "cmaes", "asha", "median", "hyperband", "wilcoxon",
    "minimize", "maximize", "val_loss", "val_acc", "score", "curve", "classifier", "llm_lora",
    "two_stage", "custom", "chat",
    "plain", "bf16", "fp16", "fp32", "int8", "categorical", "int", "uniform", "loguniform", "AdamW",
    "Lion", "cosine", "linear",
    "lora_v1", "lora_v2_1", "llm_lora", "transfer_aware", "conservative", "image", "tabular",
    "text", "drop", "error", "yes",
    "learning_rate", "network_dim", "learning_rate > 1e-4", "network_dim / 2", "epochs", "2", "0.5",
    "label", "group", "temp",
)  # fmt: skip
OTHERS = (
    None, True, False, [], {}, [[]], [{}], {"": None}, {"a": {"b": {"c": 1}}}, [1, "a", None], [None] * 300, [0, 0],
    {1: 2}, {None: 1}, {True: False}, {"name": "x"}, datetime.date(2020, 1, 1),
    datetime.datetime(1, 1, 1, tzinfo=datetime.UTC),
    b"\xff\x00", ["../.."], {"type": "int", "low": 0, "high": 10**12},
    {"type": "uniform", "low": 0, "high": 1, "step": 1e-9},
    _nested(30), _nested(400),
)  # fmt: skip
STRANGE = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(OTHERS),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
"""Values that nobody expects."""


def places(tree: Any) -> Iterator[Place]:
    """Every place of a document."""
    keys: Sequence[Any] = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    for key in keys:
        yield tree, key
        yield from places(tree[key])


@dataclass(frozen=True)
class Spot:
    """A place that is changed, the other places of its document, and what draws."""

    draw: Draw
    within: Any
    key: Any
    others: Sequence[Place]

    @property
    def value(self) -> Any:
        """What stands there."""
        return self.within[self.key]

    def put(self, value: Any) -> None:
        """Puts a value there."""
        self.within[self.key] = value


def _drop(spot: Spot) -> None:
    del spot.within[spot.key]


def _replace(spot: Spot) -> None:
    spot.put(copy.deepcopy(spot.draw(STRANGE)))


def _nudge(spot: Spot) -> None:
    """Another value that could be meant."""
    value = spot.value
    if isinstance(value, bool):
        spot.put(not value)
    elif isinstance(value, int | float):
        changed = _finite(value) * spot.draw(st.sampled_from([0, -1, 0.5, 2, 3, 10, 1000, 1e-6]))
        spot.put(int(changed) if isinstance(value, int) and spot.draw(st.booleans()) else changed)
    elif isinstance(value, str):
        spot.put(spot.draw(st.sampled_from([one for one in WORDS if one != value])))
    elif isinstance(value, list) and value:
        spot.put(value[: spot.draw(st.integers(0, len(value) - 1))])


def _finite(value: float) -> float:
    """The value, or 1 where it is none to reckon with."""
    return value if -1e200 < value < 1e200 else 1


def _rename(spot: Spot) -> None:
    if isinstance(spot.within, list):
        spot.within.insert(spot.key, copy.deepcopy(spot.value))
        return
    given = str(spot.key)
    likely = st.sampled_from([given.upper(), given + "s", given[1:], f" {given}"])
    name, value = spot.draw(st.one_of(likely, STRANGE)), spot.within.pop(spot.key)
    spot.within[name if isinstance(name, Hashable) else str(name)] = value


def _exchange(spot: Spot) -> None:
    other, place = spot.draw(st.sampled_from(spot.others))
    before, after = spot.value, other[place]
    spot.put(copy.deepcopy(after))
    other[place] = copy.deepcopy(before)


def _wrap(spot: Spot) -> None:
    spot.put([spot.value] if spot.draw(st.booleans()) else {"value": spot.value})


def _as_text(spot: Spot) -> None:
    spot.put(str(spot.value))


def _link(spot: Spot) -> None:
    """The same object in two places: YAML writes an anchor and an alias."""
    other, place = spot.draw(st.sampled_from(spot.others))
    if not _holds(other[place], spot.within):
        spot.put(other[place])


def _holds(tree: Any, wanted: Any) -> bool:
    return tree is wanted or any(within[key] is wanted for within, key in places(tree))


_CHANGES = (_nudge, _nudge, _nudge, _replace, _replace, _drop, _drop, _rename, _exchange, _wrap, _as_text, _link)


@st.composite
def documents(draw: Draw, valid: Sequence[Any], *, most: int = 3) -> Any:
    """One of some valid documents after up to `most` changes."""
    tree = [copy.deepcopy(draw(st.sampled_from(valid)))]  # the root has a place, too
    for _ in range(draw(st.integers(1, most))):
        found = list(places(tree))
        if not found:
            break
        within, key = found[draw(st.integers(0, len(found) - 1))]
        draw(st.sampled_from(_CHANGES))(Spot(draw, within, key, found))
    return tree[0] if tree else None


PIECES = (
    b"", b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n\r\n", b'"', b"'", b",",
    b",,,,", b";", b"\t",
    b"{", b"}", b"[" * 3000, b"]", b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ",
    b"!!set {}", b"!!binary ", b"? ",
    b": ", b"- ", b"|", b">", b"%YAML 9.9\n", b"---\n", b"...", b"#", b"=", b"\\", b"\\u0000",
    b"\\ud800", b"NaN", b"1e999",
    b"9" * 5000, b"2020-13-45", b"0x", b"0o9", b"1_0", b"12:30:45", b"\xe2\x80\xa8", b"\xc2\x85",
    b"\x1b[2J", b"A" * 10_000,
)  # fmt: skip


@st.composite
def spoilt(draw: Draw, content: bytes, *, most: int = 4) -> bytes:
    """The bytes of a file after some accidents."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "set", "insert", "delete", "repeat", "cut", "move"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "insert":
                data[at:at] = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)))
            case "delete":
                del data[at : at + draw(st.integers(1, 64))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 200))] * draw(st.integers(1, 3))
            case "cut":
                del data[at:]
            case "move":
                taken = data[at : at + draw(st.integers(1, 100))]
                to = draw(st.integers(0, len(data)))
                data[to:to] = taken
    return bytes(data)
