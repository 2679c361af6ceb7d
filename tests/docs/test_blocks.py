"""Every fenced block of the docs: programs run, `tune-lora` runs or is parsed by its own parser, studies are valid,
dataset files are read. What is not executed says why beside it (`tests.docs.blocks`)."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from search_spaces.space import Space
from tests.docs import blocks, world
from tests.docs.blocks import PAGES, ROOT, Block
from trainables.custom import Trial
from trainables.lora import dataset
from tune_lora import build, spec
from tune_lora.cli import app
from tune_lora.table_spec import TableSpec

GROUP: Any = get_command(app)
USAGE_ERROR: Any = typer.BadParameter.__base__  # typer carries a click of its own
WITH_BLOCKS = [page for page in PAGES if blocks.of(page)]
FRAGMENTS: dict[str, dict[str, Any]] = {
    "classifier": {"space": "classifier_conservative"},
    "two_stage": {"space": "transfer_aware"},
    "diffusion_lora": {"space": "lora_tiny", "dataset": {"path": "demo-character"}},
    "curve": {"space": "lora_v2_1"},
}
"""What a part of a study file is completed with, by trainer."""


def kind(block: Block) -> str:
    """What is done with a block; one word for each function below."""
    if block.language not in blocks.LANGUAGES:
        raise AssertionError(f"{block.place}: {block.language!r}; must be one of {', '.join(blocks.LANGUAGES)}")
    if block.language == "yaml":
        given = yaml.safe_load(block.text)
        return (
            "table"
            if blocks.A_TABLE in block.note
            else "study"
            if {"name", "space"} <= set(given)
            else "part of a study"
        )
    if block.language in blocks.SHELL:
        return "transcript" if block.is_transcript else "commands"
    return {"python": "program", "toml": "dataset file", "text": "output"}[block.language]


# --- nothing is left out ----------------------------------------------------------------------------------------------


def test_every_block_of_every_page_has_a_kind_and_each_kind_is_there() -> None:
    fences = sum(len(re.findall(r"^```", (ROOT / page).read_text("utf-8"), re.MULTILINE)) for page in PAGES)
    every = [block for page in PAGES for block in blocks.of(page)]
    assert 2 * len(every) == fences and len(every) > 80
    counts = Counter(kind(block) for block in every)
    print(", ".join(f"{count} {name}" for name, count in counts.most_common()))  # noqa: T201 - the list, with `-rP`
    assert set(counts) == {
        *("program", "study", "part of a study", "table", "dataset file", "commands", "transcript", "output"),
    }


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_command_hides_in_an_indented_block(page: Path) -> None:
    outside = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^ {4}(?:\$ )?(?:tune-lora|python|make|pip) .*$", outside, re.MULTILINE)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=str)
def test_what_is_only_parsed_is_there(page: Path) -> None:
    text = (ROOT / page).read_text("utf-8")
    names = {name for block in blocks.of(page) if block.script for name in map(block.name, safely(block))}
    assert set(blocks.parsed_only(text, page=True)) <= names | {blocks.EVERYTHING}
    for block in blocks.of(page):
        own = set(blocks.parsed_only(block.note, page=False))
        assert own <= {block.name(words) for words in safely(block)} | {blocks.EVERYTHING}, block.place


def test_a_block_without_an_end_or_of_an_unknown_kind_is_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"page\.md:3: this block has no end"):
        list(blocks.read("a\n\n```bash\nls\n", Path("page.md")))
    (unknown,) = blocks.read("```\ntune-lora verify x\n```\n", Path("page.md"))
    with pytest.raises(AssertionError, match=r"page\.md:2: ''; must be one of"):
        kind(unknown)


# --- what stands on a page, in its order ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished studies, each made once."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader: data and finished studies as the pages name them."""
    monkeypatch.chdir(tmp_path)
    world.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=str)
def test_every_block_does_what_it_is_for(page: Path, here: Path, made: Path) -> None:
    world.prepare(here, "".join(block.text for block in blocks.of(page)), made)
    for block in blocks.of(page):
        if block.file is not None:
            (here / block.file).write_text(block.text)
    for block in blocks.of(page):
        DONE[kind(block)](block, here)


def program(block: Block, here: Path) -> None:
    if "results/classifier/trained" in block.text:
        world.trained_classifier(here)
    if "results/mine/trained" in block.text:
        pytest.importorskip("rdkit")
        (study,) = [one for one in blocks.of(block.page) if kind(one) == "study"]
        world.trained_transfer(here, study.text)
    exec(compile(block.text, block.place, "exec"), {"__name__": "shown"})


def study(block: Block, here: Path) -> None:
    """Valid with the reader's data in place, to the last check that `run` makes before it starts."""
    path = here / (block.file or "shown.yaml")
    path.write_text(block.text)
    ready = build.plan(spec.load(path))
    assert ready.space.parameters, block.place


def part_of_a_study(block: Block, here: Path) -> None:
    """Each of its settings is one, and its space and what it carries over are there."""
    given = yaml.safe_load(block.text)
    images = "diffusion_lora" if "preference" in given.get("objective", {}) else "curve"
    trainer = given.get("trainer", "two_stage" if "transfer" in given else images)
    whole = {"name": "shown", "trainer": trainer, **FRAGMENTS[trainer], **given}
    found = spec.from_mapping(whole, block.place, relative_to=here)
    assert set(given) <= set(found.as_mapping()), block.place
    Space.load(whole["space"])


def table(block: Block, here: Path) -> None:
    assert TableSpec.model_validate(yaml.safe_load(block.text)).source().path.name


def dataset_file(block: Block, here: Path) -> None:
    (here / "dataset.toml").write_text(block.text)
    subsets = [subset for one in tomllib.loads(block.text)["datasets"] for subset in one["subsets"]]
    found = dataset.load(here / "dataset.toml")
    assert {image.path.parent.name for image in (*found.train, *found.held_out)} == {
        one["image_dir"] for one in subsets
    }


def output(block: Block, here: Path) -> None:
    """What was printed once. Nobody could run it; the pages' own tests hold some against what is printed today."""
    assert block.text.strip(), block.place


def commands(block: Block, here: Path) -> None:
    """Each is run, or, where the comment before it names it, parsed."""
    ended = subprocess.run(["bash", "-n", "-c", block.script], capture_output=True, text=True)
    assert ended.returncode == 0, f"{block.place}: {ended.stderr}"
    for words in safely(block):
        is_parsed = {blocks.EVERYTHING, block.name(words)} & block.parsed
        if words[0] == "tune-lora":
            (parse if is_parsed else run)(words, block.place)
        else:
            assert is_parsed, f"{block.place}: {words[0]} is not run; must be named in <!-- parsed only (...): why -->"
            known_elsewhere(words, block.place)


DONE = {
    "program": program,
    "study": study,
    "part of a study": part_of_a_study,
    "table": table,
    "dataset file": dataset_file,
    "output": output,
    "commands": commands,
    "transcript": commands,
}


def safely(block: Block) -> Iterator[list[str]]:
    """The commands of a block of a shell. Of a script that is parsed as a whole: those of `tune-lora`."""
    if block.language not in blocks.SHELL:
        return
    if blocks.EVERYTHING in block.parsed:
        yield from _tune_lora_in(block.script)
    else:
        yield from block.commands()


def _tune_lora_in(script: str) -> Iterator[list[str]]:
    for line in blocks.joined(script):
        if "tune-lora " in line:
            yield shlex.split(line[line.index("tune-lora ") :], comments=True)


def parse(words: list[str], place: str) -> None:
    """The command exists, its options exist, what must be given is given, and values are of their type."""
    name, *arguments = words[1:]
    assert name in GROUP.commands, f"{place}: tune-lora {name}; available: {', '.join(GROUP.commands)}"
    try:
        GROUP.commands[name].make_context(name, list(arguments))
    except USAGE_ERROR as error:
        raise AssertionError(f"{place}: {' '.join(words)}: {error.format_message()}") from None


def run(words: list[str], place: str) -> None:
    ended = CliRunner().invoke(app, words[1:], input="\n" * 5)
    assert ended.exit_code == 0, f"{place}: {' '.join(words)}: {ended.exception or ended.output}"


def known_elsewhere(words: list[str], place: str) -> None:
    """Of commands of others: what this repository can know of them."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        ended = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, f"{place}: {ended.stderr}"
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        assert {name for word in words for name in re.findall(r"tune-lora\[(\w+)\]", word)} <= set(extras), place
    if Path(words[0]).name == "python" and "-m" in words:
        assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None, place
    if words[0].startswith(("cluster/", "scripts/")):
        assert (ROOT / words[0]).is_file(), place


# --- what stands in a sentence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_in_sentences_exist_with_their_options(page: Path) -> None:
    for _, name, *words in blocks.inline_commands(page):
        assert name in GROUP.commands, f"{page}: tune-lora {name}"
        known = {option for parameter in GROUP.commands[name].params for option in parameter.opts} | {"--help"}
        asked = {word.partition("=")[0].rstrip(",.;)") for word in words if re.match(r"--?[a-z]", word)}
        assert asked <= known, f"{page}: tune-lora {name} {' '.join(words)}"


def test_a_command_or_an_option_that_there_is_not_is_found() -> None:
    for words in (["tune-lora", "runn", "x"], ["tune-lora", "run"], ["tune-lora", "top", "x", "--bye", "lr"]):
        with pytest.raises(AssertionError, match=r"page\.md:1: "):
            parse(words, "page.md:1")
    with pytest.raises(AssertionError, match="does not exist"):
        run(["tune-lora", "top", "results/nowhere"], "page.md:1")


def test_the_trainer_with_a_report_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    (_, shown) = [one.text for one in blocks.of(Path("docs/own_trainer.md")) if kind(one) == "program"]
    names: dict[str, Any] = {}
    exec(compile(shown, "docs/own_trainer.md", "exec"), names)
    params = {"learning_rate": 0.1}
    whole = list(names["train"](params, Trial(tmp_path, 0, 6)))
    whole[2].save(tmp_path)
    rest = list(names["train"](params, Trial(tmp_path, 0, 6, restore=tmp_path, done=3)))
    assert [(one.budget, one.metrics) for one in rest] == [(one.budget, one.metrics) for one in whole[3:]]
