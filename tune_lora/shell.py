"""Commands that are shown can be copied: each word as a shell wants it."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """``tune-lora`` with these words, quoted where one has blanks or what a shell would read otherwise."""
    return shlex.join(["tune-lora", *map(str, words)])


def next_of(file: object) -> str:
    """The line below a study file that was just written: what is typed next."""
    return f"next: {command('validate', file)}; {command('run', file)}"
