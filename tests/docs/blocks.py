"""The fenced blocks of the docs, and what is said about them beside them.

A comment right before a block says what of it is not executed, and why:

    <!-- parsed only (run, generate): they train and draw for minutes -->

Names are commands of `tune-lora`, or programs; ``all`` is the whole block. ``parsed only on this page`` holds for all
blocks of a page. `<!-- a table -->` before YAML says that it describes a table, not a study.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        path.relative_to(ROOT) for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
    )
)
SHELL, TEXT = ("bash", "console"), "text"
LANGUAGES = ("python", "yaml", "toml", *SHELL, TEXT)
EVERYTHING = "all"
A_TABLE = "a table"
_PARSED = re.compile(r"<!-- parsed only( on this page)? \(([^)]+)\): (\S.*?) -->", re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|toml))\b")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is its first line in the page, `note` the comment before it, `parsed` names what of it is
    not executed."""

    page: Path
    line: int
    language: str
    text: str
    note: str
    parsed: frozenset[str]

    @property
    def place(self) -> str:
        """Where it stands, as an editor can open it."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that its first line says it is."""
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def is_transcript(self) -> bool:
        """Whether commands stand behind a prompt, with their output below."""
        return self.language == "console" and any(line.startswith("$ ") for line in self.text.splitlines())

    @property
    def script(self) -> str:
        """What a shell would be given."""
        if not self.is_transcript:
            return self.text
        return "\n".join(command.removeprefix("$ ") for command in joined(self.text) if command.startswith("$ "))

    def commands(self) -> list[list[str]]:
        """Each command as its words, without comments."""
        found = [shlex.split(line.partition(" | ")[0], comments=True) for line in joined(self.script)]
        return [words for words in found if words]

    def name(self, words: list[str]) -> str:
        """What the comment calls a command: that of `tune-lora`, or the program."""
        return words[1] if words[0] == "tune-lora" and len(words) > 1 else Path(words[0]).name


def joined(text: str) -> list[str]:
    """Lines, with those that end in a backslash joined to the next one."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()


def parsed_only(text: str, *, page: bool) -> dict[str, str]:
    """Names of what is not executed, with the reason; of comments about the `page` or about a block."""
    found = [(names, why) for whole, names, why in _PARSED.findall(text) if bool(whole) == page]
    return {name.strip(): why for names, why in found for name in names.split(",")}


def of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return list(read((ROOT / page).read_text("utf-8"), page))


def read(text: str, page: Path) -> Iterator[Block]:
    """The fenced blocks of a page's text.

    Raises:
        ValueError: a fence that is not closed.
    """
    everywhere = parsed_only(text, page=True)
    lines, start = text.splitlines(), None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        note = _comment_above(lines[:start])
        names = everywhere.keys() | parsed_only(note, page=False).keys()
        body = "\n".join(lines[start + 1 : number]) + "\n"
        yield Block(page, start + 2, lines[start].removeprefix("```").strip(), body, note, frozenset(names))
        start = None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: this block has no end")


def _comment_above(lines: list[str]) -> str:
    """The HTML comment that stands right above, an empty line between allowed; or nothing."""
    above = "\n".join(lines).rstrip()
    if not above.endswith("-->"):
        return ""
    return above[above.rindex("<!--") :]


def inline_commands(page: Path) -> list[list[str]]:
    """Words of each `tune-lora ...` that stands within a sentence."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`(tune-lora [a-z][^`]*)`", text)
    return [" ".join(span.split()).split() for span in spans]
