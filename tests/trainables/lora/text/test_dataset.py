"""The split goes by content, tokens are made once and never stale, and whatever is lost is counted and told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.trainables.lora.text import small_model
from trainables.lora.text import dataset
from trainables.lora.text.dataset import chosen_template, split, tokenise
from trainables.lora.text.examples import Example, load
from trainables.lora.text.settings import TextSettings
from tune_lora.errors import InputError


def contents(examples) -> set[str]:
    return {example.digest() for example in examples}


def test_the_split_is_the_same_whatever_the_order_of_the_file(tmp_path: Path, questions: Path) -> None:
    rows = small_model.examples()
    random.Random(1).shuffle(rows)
    shuffled = small_model.write_data(tmp_path / "other.jsonl", rows)
    one, other = split(questions, TextSettings()), split(shuffled, TextSettings())
    assert contents(one.held_out) == contents(other.held_out) and len(one.held_out) == 10
    assert contents(one.train) | contents(one.held_out) == contents(load(questions, TextSettings()))


def test_what_is_held_out_is_never_trained_on_even_when_it_stands_twice(tmp_path: Path) -> None:
    path = small_model.write_data(tmp_path / "twice.jsonl", small_model.examples() * 2)
    found = split(path, TextSettings())
    assert not contents(found.held_out) & contents(found.train)
    assert len(found.train) == 2 * 86 and len(found.held_out) == 10


def test_a_validation_file_is_judged_by_and_nothing_is_held_out(tmp_path: Path, questions: Path) -> None:
    other = small_model.write_data(tmp_path / "v.jsonl", [{"prompt": "a", "completion": "b"}])
    found = split(questions, TextSettings(validation=str(other)))
    assert len(found.train) == 96 and contents(found.held_out) == contents(load(other, TextSettings()))


def test_more_than_the_limit_is_left_out_and_counted(questions: Path) -> None:
    found = split(questions, TextSettings(held_out_share=0.5, held_out_limit=8))
    assert len(found.held_out) == 8 and found.left_out == 40 and len(found.train) == 48


def test_of_one_text_the_end_is_held_out(tmp_path: Path) -> None:
    text = "\n".join(f"Line {index} of a long story." for index in range(100))
    (tmp_path / "a.txt").write_text(text, "utf-8")
    found = split(tmp_path / "a.txt", TextSettings())
    (train,), (held_out,) = found.train, found.held_out
    assert train.text + held_out.text == text and train.text.endswith("\n")
    assert 0.05 < len(held_out.text) / len(text) < 0.2


def test_examples_that_are_all_the_same_cannot_be_split(tmp_path: Path) -> None:
    path = small_model.write_data(tmp_path / "a.jsonl", small_model.examples()[:1] * 9)
    with pytest.raises(InputError, match="all examples are the same; must hold two different ones"):
        split(path, TextSettings())


def test_tokens_are_made_once_and_never_stale(tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_LORA_CACHE", str(tmp_path / "cache"))
    made, real = [], dataset.encode_all
    monkeypatch.setattr(dataset, "encode_all", lambda *arguments: made.append(1) or real(*arguments))
    path = small_model.write_data(tmp_path / "a.jsonl")
    settings = TextSettings(max_length=64)

    def count(settings: TextSettings = settings, tokenizer=tokenizer) -> int:
        made.clear()
        tokenise(split(path, settings), tokenizer, settings)
        return len(made)

    assert count() == 96
    assert count() == 0
    assert count(TextSettings(max_length=32)) == 96
    assert count(settings, small_model.tokenizer(f"A chat. {small_model.CHAT}")) == 96
    small_model.write_data(path, [*small_model.examples()[:-1], {"prompt": "new", "completion": "one"}])
    assert count() > 0
    for entry in (tmp_path / "cache" / "tokens").iterdir():
        entry.write_bytes(entry.read_bytes()[:50])
    assert count() == 96  # a damaged entry is made again


def test_the_cache_gives_back_what_was_made(tokenizer, questions: Path) -> None:
    settings = TextSettings(max_length=24)
    first, second = (tokenise(split(questions, settings), tokenizer, settings) for _ in range(2))
    for one, other in zip(first.train, second.train, strict=True):
        assert one.ids.tolist() == other.ids.tolist() and one.learnt.tolist() == other.learnt.tolist()
    assert first.counts == second.counts and first.prompts == second.prompts


def test_what_is_cut_is_counted_and_told(tmp_path: Path, tokenizer) -> None:
    rows = [*small_model.examples(), {"prompt": "What is a fig?", "completion": "A fruit. " * 60}]
    path = small_model.write_data(tmp_path / "a.jsonl", rows)
    held_out = small_model.write_data(tmp_path / "v.jsonl", small_model.examples()[:3])
    settings = TextSettings(max_length=40, validation=str(held_out))
    data = tokenise(split(path, settings), tokenizer, settings)
    assert data.counts.cut == 1 and data.counts.cut_tokens >= data.counts.cut_learnt > 0
    told = data.counts.notes(40)
    assert "97 training examples" in told[0]
    assert told[1].startswith("1 of 97 training examples are longer than max_length 40 and were cut by")
    assert max(map(len, data.train)) == 40


def test_nothing_is_told_where_nothing_was_cut(tokenizer, questions: Path) -> None:
    settings = TextSettings(max_length=64)
    assert len(tokenise(split(questions, settings), tokenizer, settings).counts.notes(64)) == 1


def test_auto_takes_the_chat_template_and_else_what_fits_the_data(tokenizer) -> None:
    without = small_model.tokenizer(None)
    joined, turns = Example(joined=True), Example()
    assert chosen_template([joined], tokenizer, "auto") == "chat"
    assert chosen_template([joined], without, "auto") == "none"
    assert chosen_template([turns], without, "auto") == "plain"
    assert chosen_template([turns], tokenizer, "plain") == "plain"
    with pytest.raises(InputError, match="has no chat template; must be plain, none or auto"):
        chosen_template([turns], without, "chat")
