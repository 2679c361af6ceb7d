"""The demo's instruction set: always the same, all different, and an answer says what its question says."""

from __future__ import annotations

import json
from pathlib import Path

from trainables.demo_logbook import COUNT, examples, write_dataset


def test_the_examples_differ_and_are_the_same_each_time(tmp_path: Path) -> None:
    made = list(examples())
    assert len(made) == len({one["prompt"] for one in made}) == COUNT
    assert made[:5] == list(examples(5))
    assert made != list(examples(seed=1))
    written = [json.loads(line) for line in write_dataset(tmp_path / "a" / "logbook.jsonl").read_text().splitlines()]
    assert written == made


def test_an_answer_says_what_its_question_says() -> None:
    for one in examples(60):
        when, where, _, wind, crew = one["completion"].split(" | ")
        day, hour = when.split()
        place, knots = where.split()[1], wind.split()[1]
        assert f"{day.title()}" in one["prompt"] and place in one["prompt"] and f"{knots} knots" in one["prompt"]
        assert hour.endswith("h") and crew.endswith("POB")
