"""Options that take several words: `--params lr batch_size` is `--params lr --params batch_size`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_lora.options import repeated


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        ("r --params a b", "r --params a --params b"),
        ("r --params a b --kind c d", "r --params a --params b --kind c d"),
        ("--params a --params b c r", "--params a --params b --params c --params r"),
        ("r --kind slice --output x", "r --kind slice --output x"),
        ("r --params", "r --params"),
        ("r --params=a b", "r --params=a --params b"),
        ("r --kind=slice x", "r --kind=slice x"),
    ],
)
def test_words_after_the_option_are_its_values(given_: str, found: str) -> None:
    assert repeated(given_.split(), ["--params"]) == found.split()


@given(st.lists(st.sampled_from(["a", "b", "-x", "--kind", "--output"])))
def test_what_does_not_have_the_option_stays(words: list[str]) -> None:
    assert repeated(words, ["--params"]) == words


@given(st.lists(st.sampled_from(["a", "b", "-x", "--params", "--kind"])))
def test_it_is_the_same_when_it_is_done_twice(words: list[str]) -> None:
    once = repeated(words, ["--params"])
    assert repeated(once, ["--params"]) == once
