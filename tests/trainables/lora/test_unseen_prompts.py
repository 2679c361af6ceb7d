"""Prompts that a study was not judged by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainables.demo_character.dataset import caption, poses
from trainables.lora.unseen_prompts import chosen, unseen

WORDS = st.lists(st.text("abc ,", min_size=1, max_size=20), max_size=12)


def test_they_look_like_the_captions_and_are_none_of_them() -> None:
    captions = [caption("bobo", pose) for pose in poses(24)]
    made = unseen(captions, ["bobo, side view, crying, 3d render, white background"])
    assert len(made) > 50
    assert all(text.startswith("bobo, ") and text.endswith(", 3d render, white background") for text in made)
    assert not set(made) & set(captions)
    assert "bobo, side view, crying, 3d render, white background" not in made
    views = {text.split(", ")[1] for text in made}
    assert {"frontal view", "side view", "view from above"} <= views


def test_order_case_and_spaces_make_no_new_prompt() -> None:
    known = unseen(["bobo, frontal view"], ())[0]
    first, second, third = known.split(", ")
    again = unseen(["bobo, frontal view"], [f"{third.upper()},{second} ,  {first}"])
    assert known not in again


def test_prose_names_its_subject_first() -> None:
    made = unseen(["bobo sits on a chair", "bobo laughs at the moon"], ())
    assert all(text.startswith("bobo, ") for text in made)


@given(WORDS, WORDS)
def test_there_are_always_some_and_none_is_known(captions: list[str], known: list[str]) -> None:
    made = unseen(captions, known)
    assert made
    assert not set(made) & {*captions, *known}
    assert len(set(made)) == len(made)


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_seed_chooses_and_none_comes_twice_before_all_have(count: int, seed: int) -> None:
    prompts = [f"prompt {number}" for number in range(12)]
    found = chosen(prompts, count, seed)
    assert found == chosen(prompts, count, seed)
    assert len(found) == count
    assert len(set(found[:12])) == min(count, 12)


def test_other_seeds_choose_others() -> None:
    prompts = [f"prompt {number}" for number in range(100)]
    assert chosen(prompts, 8, 1) != chosen(prompts, 8, 2)
