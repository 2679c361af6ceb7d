"""Commands that are shown can be copied, whatever a folder is called."""

import shlex
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tune_lora import shell, wording

FOLDERS = st.text(min_size=1, max_size=30).filter(lambda name: "\0" not in name)


@given(FOLDERS)
def test_a_folder_is_one_word_whatever_it_is_called(folder: str) -> None:
    assert shlex.split(shell.command("verify", folder, "--seeds", 5)) == ["tune-lora", "verify", folder, "--seeds", "5"]
    first, second = shell.next_of(folder).removeprefix("next: ").split("; tune-lora run ")
    assert shlex.split(first) == ["tune-lora", "validate", folder] and shlex.split(second) == [folder]


def test_all_that_a_study_ends_with_can_be_copied(example: Any) -> None:
    folder = 'my results/it\'s "new" $(date)'
    commands = wording.next_commands(example.record, folder)
    assert len(commands) >= 5
    for command, _ in commands:
        program, _, *rest = shlex.split(command)
        assert program == "tune-lora" and rest[0] == folder


def test_plain_names_stay_plain() -> None:
    assert (
        shell.command("resume", "results/demo", "--n-trials", "+20") == "tune-lora resume results/demo --n-trials +20"
    )
