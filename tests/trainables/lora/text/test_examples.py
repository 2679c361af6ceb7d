"""Files people have become examples: every layout of columns, every kind of file, and every mistake in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas
import pytest

from trainables.lora.text.examples import Turn, load
from trainables.lora.text.settings import TextSettings
from tune_lora.errors import InputError

USER, ANSWER = Turn("user", "What is a fig?", False), Turn("assistant", "A fruit.", True)
MESSAGES = [{"role": "user", "content": "What is a fig?"}, {"role": "assistant", "content": "A fruit."}]
FLAT = {"prompt": "What is a fig?", "completion": "A fruit."}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"messages": MESSAGES},
        {"conversations": [{"from": "human", "value": "What is a fig?"}, {"from": "gpt", "value": "A fruit."}]},
        FLAT,
        {"question": "What is a fig?", "answer": "A fruit."},
        {"instruction": "What is a fig?", "input": "", "output": "A fruit."},
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
    ],
    ids=["messages", "sharegpt", "prompt", "question", "alpaca", "chat-prompt"],
)
def test_the_format_is_told_by_the_columns(tmp_path: Path, row: dict) -> None:
    (example,) = load(lines(tmp_path / "a.jsonl", row), TextSettings())
    assert example.turns == (USER, ANSWER)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".tsv"])
def test_every_kind_of_file_holds_the_same_examples(tmp_path: Path, suffix: str) -> None:
    path, rows = tmp_path / f"data{suffix}", [FLAT, {"prompt": 'Say "a, b"\nnow', "completion": "a, b – é"}]
    frame = pandas.DataFrame(rows)
    if suffix == ".jsonl":
        lines(path, *rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    found = [[turn.content for turn in example.turns] for example in load(path, TextSettings())]
    assert found == [[row["prompt"], row["completion"]] for row in rows]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\u000b", "\u001c"], ids=ascii)
def test_json_lines_end_at_line_feeds_and_nowhere_else(tmp_path: Path, mark: str) -> None:
    row = {"prompt": "What is a fig?", "completion": f"A{mark}fruit."}
    raw = json.dumps(row, ensure_ascii=mark < " ") + "\r\n"
    (tmp_path / "a.jsonl").write_text(raw + raw, "utf-8", newline="")
    found = load(tmp_path / "a.jsonl", TextSettings())
    assert [example.turns[1].content for example in found] == [f"A{mark}fruit."] * 2


@pytest.mark.parametrize(
    "content",
    [
        {"messages": MESSAGES},
        {
            "id": 7,
            "conversations": [{"from": "human", "value": "What is a fig?"}, {"from": "gpt", "value": "A fruit."}],
        },
        {**FLAT, "tags": ["fruit"]},
        {"version": 1, "rows": [FLAT]},
        {"data": [{"messages": MESSAGES}]},
        FLAT,
    ],
)
def test_one_object_of_json_is_an_example_or_names_its_rows(tmp_path: Path, content: dict) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content), "utf-8")
    (example,) = load(tmp_path / "a.json", TextSettings())
    assert example.turns == (USER, ANSWER)


def test_a_field_of_csv_may_be_long(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    pandas.DataFrame([{"prompt": "a", "completion": "b" * 200_000}]).to_csv(tmp_path / "a.csv", index=False)
    (example,) = load(tmp_path / "a.csv", TextSettings())
    assert len(example.turns[1].content) == 200_000
    assert csv.field_size_limit() == before


def test_parquet_holds_conversations(tmp_path: Path) -> None:
    pandas.DataFrame({"messages": [MESSAGES]}).to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", TextSettings())[0].turns == (USER, ANSWER)


def test_plain_text_is_one_example(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once.\n\nTwice.", "utf-8")
    (example,) = load(tmp_path / "a.txt", TextSettings())
    assert example.text == "Once.\n\nTwice." and not example.turns


def test_an_instruction_carries_its_input_and_its_system_turn(tmp_path: Path) -> None:
    row = {"system": "Be brief.", "instruction": "Translate.", "input": "chat", "output": "cat"}
    (example,) = load(lines(tmp_path / "a.jsonl", row), TextSettings())
    assert [(turn.role, turn.content) for turn in example.turns] == [
        ("system", "Be brief."), ("user", "Translate.\n\nchat"), ("assistant", "cat"),
    ]  # fmt: skip


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"frage": "What is a fig?", "antwort": "A fruit."})
    settings = TextSettings(fields={"prompt": "frage", "completion": "antwort"})
    assert load(path, settings)[0].turns == (USER, ANSWER)


def test_what_follows_the_last_answer_is_left_out(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"messages": [*MESSAGES, {"role": "user", "content": "Thanks"}]})
    assert load(path, TextSettings())[0].turns == (USER, ANSWER)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"q": "a"}], {}, "got the columns q; must hold one of: messages; prompt and completion; instruction"),
        ([FLAT, {"prompt": "a", "completion": None}], {}, "example 2: completion: got None; must be text"),
        ([{"messages": "hello"}], {}, "messages: got 'hello'; must be a list of turns"),
        ([{"messages": [{"role": "usr", "content": "a"}]}], {}, "did you mean 'user'?"),
        ([{"messages": MESSAGES[:1]}], {}, "no turn of the assistant has any content"),
        ([{"prompt": "a", "completion": " "}], {}, "no turn of the assistant has any content"),
        ([FLAT], {"fields": {"promt": "prompt"}}, "unknown field 'promt'; did you mean 'prompt'?"),
        ([FLAT], {"fields": {"prompt": "promt"}}, "no column 'promt'; did you mean 'prompt'?"),
        ([{"text": "  "}], {}, "text is empty"),
        ([["a", "b"]], {}, "a.jsonl:1: got a list; must be an object"),
    ],
)
def test_a_mistake_in_the_data_is_one_clear_line(tmp_path: Path, rows: list, settings: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(lines(tmp_path / "a.jsonl", *rows), TextSettings(**settings))
    assert message in str(caught.value)


def test_all_mistakes_are_told_but_a_wrong_export_does_not_fill_the_screen(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(lines(tmp_path / "a.jsonl", FLAT, *[{"prompt": 1, "completion": "a"}] * 50), TextSettings())
    told = str(caught.value).splitlines()
    assert len(told) == 6 and told[-1] == "... and 45 more like these"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"{", "a.jsonl:1: is not JSON"),
        ("a.json", b"[1]", "entry 0: must be an object"),
        ("a.json", b"nonsense", "is not JSON"),
        ("a.json", b"42", "a.json: got 42; must be a list of objects"),
        ("a.json", b"true", "a.json: got true; must be a list of objects"),
        ("a.json", b"null", "a.json: got null; must be a list of objects"),
        ("a.json", b'"a word"', 'a.json: got "a word"; must be a list of objects'),
        ("a.parquet", b"nonsense", "cannot be read as Parquet"),
        ("a.csv", b"prompt,completion\n", "holds no examples"),
        ("a.txt", b" \n", "holds no examples"),
        ("a.jsonl", b"\xff\xfe\x00", "is not UTF-8"),
        ("a.docx", b"x", "got a .docx file; must be .jsonl, .json"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / name, TextSettings())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; must be a file"):
        load(tmp_path / "absent.jsonl", TextSettings())
