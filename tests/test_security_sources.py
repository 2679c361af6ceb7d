"""Nothing in the sources runs what a file says: read from the sources themselves (docs/security.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("tune_lora", "trainables", "search_spaces", "cluster", "examples", "benchmarks")

RUN_WHAT_THEY_READ = {
    *("eval", "exec", "compile", "__import__", "exec_module", "import_module"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
    *("dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open"),
    *("pandas.read_pickle", "pd.read_pickle", "torch.jit.load", "torch.hub.load", "jsonpickle.decode"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader"),
    *("os.system", "os.popen", "subprocess.getoutput", "shutil.unpack_archive", "extractall"),
}
"""Calls that run, or may run, what they read; by their whole name, or by the last part of it."""
MUST_SAY = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "AutoModelForCausalLM.from_pretrained": ("trust_remote_code", False),
    "AutoTokenizer.from_pretrained": ("trust_remote_code", False),
}
"""Calls that are safe with an argument, which must then be there."""
ALLOWED = {
    ("trainables/parallel.py", "pickle.load"): "commands on standard input, from the process that started this one",
    ("trainables/evaluation/clip_files.py", "torch.jit.load"): "OpenAI's archives; TorchScript, no Python in it",
    ("trainables/user_module.py", "import_module"): "the trainer that the user's own study file names",
    ("trainables/user_module.py", "exec_module"): "the same, beside the study file",
    ("benchmarks/search/variants.py", "eval"): "rules of our own spaces, parsed and checked, on columns",
    ("benchmarks/search/variants.py", "compile"): "the same",
}
"""Where one may be, and why."""


def sources() -> list[Path]:
    found = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    assert len(found) > 200, "this test looks in the wrong place"
    return found


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def dangerous(name: str) -> str | None:
    """The entry of the list that a call is."""
    last = name.rpartition(".")[2]
    if name in RUN_WHAT_THEY_READ:
        return name
    is_method = "." in name
    bare = {"extractall", "exec_module", "import_module"}  # whatever they are called on
    return last if last in bare and is_method else None


def says(call: ast.Call, argument: str, value: bool) -> bool:
    return any(
        keyword.arg == argument and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in call.keywords
    )


def found_in(path: Path) -> Iterator[tuple[str, int]]:
    for name, call in calls(path):
        if entry := dangerous(name):
            yield entry, call.lineno
        for wanted, (argument, value) in MUST_SAY.items():
            if name == wanted and not says(call, argument, value):
                yield f"{name} without {argument}={value}", call.lineno
        if any(word.arg == "shell" and not says(call, "shell", False) for word in call.keywords):
            yield f"{name} with a shell", call.lineno
        if says(call, "trust_remote_code", True) or says(call, "autoescape", False):
            yield f"{name} with trust or without escapes", call.lineno


def test_nothing_runs_what_a_file_says() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sources()
        for what, line in found_in(path)
        if (path.relative_to(ROOT).as_posix(), what) not in ALLOWED
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_needed() -> None:
    found = {(path.relative_to(ROOT).as_posix(), what) for path in sources() for what, _ in found_in(path)}
    assert not ALLOWED.keys() - found


def test_nothing_imports_an_unpickler_by_another_name() -> None:
    """``from pickle import load`` would pass the first test."""
    hidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module in hidden)
        or (isinstance(node, ast.Import) and any(alias.name in hidden and alias.asname for alias in node.names))
    ]
    assert not wrong


def test_every_page_is_escaped() -> None:
    """Each Jinja environment escapes by default, and no template switches it off."""
    environments = [
        (path, call) for path in sources() for name, call in calls(path) if name.rpartition(".")[2] == "Environment"
    ]
    assert environments
    assert all(any(word.arg == "autoescape" for word in call.keywords) for _, call in environments)
    templates = sorted((ROOT / "tune_lora").rglob("*.j2"))
    assert templates
    for template in templates:
        text = template.read_text("utf-8")
        assert "|safe" not in text.replace(" ", "") and "autoescape" not in text, template


@pytest.mark.parametrize(
    "line", ["pickle.load(f)", "torch.load(p)", "torch.load(p, weights_only=False)", "eval(x)", "np.load(p)",
             "subprocess.run(x, shell=True)", "archive.extractall()", "torch.load(p, weights_only=flag)"]
)  # fmt: skip
def test_this_test_finds_what_it_looks_for(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(line)
    assert list(found_in(tmp_path / "a.py"))
