"""Which tokens are learnt, token by token; and what becomes of what is too long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainables.lora.text import small_model
from trainables.lora.text.examples import Example, Turn
from trainables.lora.text.tokens import LEAST_PROMPT, Tokens, encode, encode_all, prompt_of, shortened, windows
from tune_lora.errors import InputError

ASKED = Turn("user", "What is a red fig?", False)
ANSWERED = Turn("assistant", "It is a fig.", True)
DIALOGUE = (ASKED, ANSWERED, Turn("user", "And a plum?", False), Turn("assistant", "It is blue.", True))


def learnt(tokens: Tokens, tokenizer) -> str:
    return tokenizer.decode(tokens.ids[tokens.learnt])


def shown(tokens: Tokens, tokenizer) -> str:
    return tokenizer.decode(tokens.ids[~tokens.learnt])


def test_the_answer_and_the_end_of_its_turn_are_learnt_and_nothing_else(tokenizer) -> None:
    tokens = encode(Example((ASKED, ANSWERED)), tokenizer, "chat")
    assert learnt(tokens, tokenizer) == "It is a fig.<|end|>"
    assert shown(tokens, tokenizer) == "<|start|>user\nWhat is a red fig?<|end|>\n<|start|>assistant\n\n"


def test_every_answer_of_a_conversation_is_learnt(tokenizer) -> None:
    tokens = encode(Example(DIALOGUE), tokenizer, "chat")
    assert learnt(tokens, tokenizer) == "It is a fig.<|end|>It is blue.<|end|>"
    whole = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in DIALOGUE], tokenize=False
    )  # fmt: skip
    assert tokenizer.decode(tokens.ids) == whole


def test_an_answer_that_is_only_shown_is_not_learnt(tokenizer) -> None:
    turns = (ASKED, Turn("assistant", "It is a fig.", False), *DIALOGUE[2:])
    assert learnt(encode(Example(turns), tokenizer, "chat"), tokenizer) == "It is blue.<|end|>"


def test_a_plain_template_names_the_turns(tokenizer) -> None:
    tokens = encode(Example(DIALOGUE), tokenizer, "plain")
    assert tokenizer.decode(tokens.ids) == (
        "User: What is a red fig?\n\nAssistant: It is a fig.<|end|>\n\n"
        "User: And a plum?\n\nAssistant: It is blue.<|end|>"
    )
    assert learnt(tokens, tokenizer) == " It is a fig.<|end|> It is blue.<|end|>"


def test_without_a_template_prompt_and_completion_stand_as_they_are(tokenizer) -> None:
    example = Example((Turn("user", "A red", False), Turn("assistant", " fig", True)), "", True)
    tokens = encode(example, tokenizer, "none")
    assert tokenizer.decode(tokens.ids) == "A red fig<|end|>"
    assert learnt(tokens, tokenizer) == " fig<|end|>"


def test_everything_may_be_learnt(tokenizer) -> None:
    assert encode(Example(DIALOGUE), tokenizer, "chat", "all").learnt.all()


def test_a_text_is_learnt_whole_with_its_end(tokenizer) -> None:
    tokens = encode(Example(text="A red fig."), tokenizer, "plain")
    assert learnt(tokens, tokenizer) == "A red fig.<|end|>"


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1), min_size=1, max_size=3))
def test_whatever_an_answer_holds_it_is_learnt_and_the_question_is_not(answers: list[str]) -> None:
    tokenizer = _TOKENIZER
    answers = [f"a{answer}z" for answer in answers]
    turns = [turn for text in answers for turn in (Turn("user", "QQ", False), Turn("assistant", text, True))]
    tokens = encode(Example(tuple(turns)), tokenizer, "chat")
    assert learnt(tokens, tokenizer).split("<|end|>")[:-1] == "<|end|>".join(answers).split("<|end|>")
    assert "QQ" not in learnt(tokens, tokenizer)


_TOKENIZER = small_model.tokenizer()


@pytest.mark.parametrize("template", ["chat", "plain", "none"])
def test_a_prompt_is_what_stands_before_the_first_answer(tokenizer, template: str) -> None:
    example = Example(DIALOGUE[:2])
    ids = tokenizer(prompt_of(example, tokenizer, template)).input_ids
    whole = encode(example, tokenizer, template)
    assert list(whole.ids[: len(ids)]) == ids and int(np.argmax(whole.learnt)) == len(ids)


THINKING = small_model.CHAT.replace(
    "message['content'] + '<|end|>'",
    "('red ' if loop.last and message['role'] == 'assistant' else '') + message['content'] + '<|end|>'",
)
"""Renders the last answer with something that it leaves out once a turn follows, as reasoning models' templates do."""


def test_a_template_that_rewrites_earlier_turns_gives_each_answer_an_example_of_its_own() -> None:
    forgetful = small_model.tokenizer(THINKING)
    with pytest.raises(InputError, match="renders a turn differently once others follow"):
        encode(Example(DIALOGUE), forgetful, "chat")
    first, second = encode_all(Example(DIALOGUE), forgetful, "chat")
    assert learnt(first, forgetful) == "red It is a fig.<|end|>"
    assert learnt(second, forgetful) == "red It is blue.<|end|>"
    assert "assistant\nIt is a fig.<|end|>" in shown(second, forgetful)


def test_a_template_of_which_nothing_can_be_told_is_refused() -> None:
    useless = small_model.tokenizer("{{ messages[-1]['role'] }}: {{ messages[-1]['content'] }}")
    with pytest.raises(InputError, match="must be another template"):
        encode_all(Example(DIALOGUE), useless, "chat")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m['role'] == 'user' %}[Q] {{ m['content'] }} [/Q]{% else %}"
        "{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
        "{% for m in messages %}<{{ m['role'] }}>\n\n{{ m['content'] | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n\n{% endif %}",
    ],
    ids=["no-generation-prompt", "trims"],
)
def test_templates_of_other_shapes(template: str) -> None:
    tokenizer = small_model.tokenizer(template)
    tokens = encode(Example(DIALOGUE), tokenizer, "chat")
    assert learnt(tokens, tokenizer).replace(" It", "It") == "It is a fig.<|end|>It is blue.<|end|>"


def test_a_template_that_refuses_an_example_says_why() -> None:
    strict = small_model.tokenizer("{{ raise_exception('no system turn, please') }}")
    with pytest.raises(InputError, match="refuses an example: no system turn, please"):
        encode(Example(DIALOGUE), strict, "chat")


# --- what is too long ------------------------------------------------------------------------------------------------


def made(prompt: int, answer: int) -> Tokens:
    return Tokens(np.arange(prompt + answer, dtype=np.int32), np.arange(prompt + answer) >= prompt)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(8, 40))
def test_what_is_too_long_keeps_its_answer(prompt: int, answer: int, length: int) -> None:
    kept = shortened(made(prompt, answer), length)
    assert len(kept) == min(length, prompt + answer)
    assert np.array_equal(kept.ids, np.arange(kept.ids[0], kept.ids[0] + len(kept)))  # one piece, nothing reordered
    least_prompt = min(prompt, length // LEAST_PROMPT)
    assert kept.learnt.sum() == min(answer, length - least_prompt)
    assert kept.learnt[1:].any()


@given(st.integers(1, 200), st.integers(2, 40))
def test_a_long_text_is_cut_into_pieces_and_loses_nothing(total: int, length: int) -> None:
    pieces = windows(made(0, total), length)
    assert all(1 < len(piece) <= length for piece in pieces)
    joined = np.concatenate([piece.ids for piece in pieces]) if pieces else np.array([])
    assert total - len(joined) <= 1 and np.array_equal(joined, np.arange(len(joined)))
