"""Which way imports run (docs/architecture.md), read from the sources; and that a look at the help costs neither Ray
nor torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tune_lora", "trainables", "search_spaces", "cluster")

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset(
        {
            *(
                "atomic",
                "baseline",
                "closed",
                "classifier_spec",
                "custom_spec",
                "dataset_spec",
                "folds_spec",
                "gains",
                "incidents",
                "phases_check",
                "phases_spec",
                "locks",
                "loopback",
                "names",
                "objective_spec",
                "options",
                "packing_check",
                "pairs",
                "pareto",
                "preferences",
                "rank_agreement",
                "records",
                "scheduler_spec",
                "search_spec",
                "shell",
                "termination",
                "compare_statistics",
                "verification",
                "verify_ledger",
                "verify_statistics",
            ),
            *(
                "spec",
                "bulk",
                "drivers",
                "leases",
                "storage",
                "storage_faults",
                "storage_files",
                "storage_url",
                "store",
                "table_spec",
                "text_spec",
                "transfer_spec",
                "unsaved",
            ),
        }
    ),
    frozenset({"trainers"}),
    frozenset(
        {
            "build",
            "exports",
            "mirror_copies",
            "mirror_driver",
            "mirroring",
            "knowledge",
            "live_study",
            "memory",
            "refusals",
            "shares",
            "trial_log",
            "wording",
        }
    )
    | {"recoveries", "verify_words"},
    frozenset({"agenda", "progress", "same_study", "sampling", "scheduler", "searcher", "stopping", "tracking"})
    | {"tracking_channel", "tracking_feed", "tracking_journal", "tracking_messages", "tracking_pictures"}
    | {"tracking_process", "tracking_runs"}
    | {"heaviest", "limited", "registered"},
    frozenset(
        {
            "analysis",
            "findings_view",
            "next_study",
            "compare",
            "compare_view",
            "figures",
            "lora_view",
            "rate",
            "scaffold",
            "sources",
            "verify_view",
            "view",
        }
    )
    | {"advise", "advice_evidence", "advice_view", "overrides", "places", "running_view"}
    | {"dashboard", "dashboard_notes", "dashboard_storage", "rating", "rating_view", "ratings", "taste", "taste_file"},
    frozenset({"report", "team_report"}),
    frozenset({"phases_report"}),
    frozenset({"study", "tuning", "single", "loras", "texts", "placing", "measuring", "packing"})
    | {"along", "hosted", "job_secrets", "submission"},
    frozenset({"phases", "verify", "verify_measure"}),
    frozenset({"cli", "lora_commands", "result_commands", "study_commands", "train_commands", "submit_commands"})
    | {"rating_commands", "findings_commands"}
    | {"verify_commands"},
)
"""The spine from the bottom up. A file imports its own layer and those below it."""

RAY_ONLY_IN = {
    "tune_lora/study.py",
    "tune_lora/tuning.py",
    "tune_lora/searcher.py",
    "tune_lora/scheduler/__init__.py",
    "tune_lora/scheduler/asha.py",
    "tune_lora/scheduler/deciding.py",
    "tune_lora/scheduler/optuna_pruners.py",
    "tune_lora/scheduler/pausing.py",
    "tune_lora/scheduler/queue.py",
    "tune_lora/limited.py",
    "tune_lora/registered.py",
    "tune_lora/stopping.py",
    "tune_lora/tracking.py",
    "trainables/ray_adapter.py",
    "trainables/ray_host.py",
    "cluster/connect.py",
    "cluster/dashboard.py",
    "cluster/pool.py",
    "cluster/submit.py",
}
TORCH_FAMILY = {
    "accelerate",
    "bitsandbytes",
    "diffusers",
    "lpips",
    "open_clip",
    "peft",
    "torch",
    "torchvision",
    "transformers",
}
MAY_IMPORT = {
    "search_spaces": {"search_spaces", "tune_lora.errors"},
    "trainables": {"trainables", "tune_lora.errors"},
    "cluster": {"cluster", "tune_lora.errors"},
}


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no sources in {package}"
    return found


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, at its top or inside a function."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield node.lineno, ".".join([*base, *([node.module] if node.module else []), alias.name])


def place(path: Path, line: int, name: str) -> str:
    return f"{path.relative_to(ROOT)}:{line} imports {name}"


def is_within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def importers_of(roots: set[str], packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Path to the first place where it imports one of the top-level modules."""
    found: dict[str, str] = {}
    for package in packages:
        for path in sources(package):
            for line, name in imports(path):
                if name.partition(".")[0] in roots:
                    found.setdefault(path.relative_to(ROOT).as_posix(), place(path, line, name))
    return found


def layer(module: str) -> int:
    return next(height for height, names in enumerate(LAYERS) if module in names)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_leaves_do_not_know_the_spine_nor_each_other(package: str) -> None:
    wrong = [
        place(path, line, name)
        for path in sources(package)
        for line, name in imports(path)
        if name.partition(".")[0] in PACKAGES and not is_within(name, MAY_IMPORT[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_file_of_the_spine_has_a_place() -> None:
    found = {path.relative_to(ROOT / "tune_lora").parts[0].removesuffix(".py") for path in sources("tune_lora")}
    unplaced = found - frozenset.union(*LAYERS) - {"__init__"}
    assert not unplaced, (
        f"put these in a layer of {Path(__file__).name} and in docs/architecture.md: {sorted(unplaced)}"
    )


def test_the_spine_imports_downwards() -> None:
    wrong, seen = [], 0
    for path in sources("tune_lora"):
        mine = path.relative_to(ROOT / "tune_lora").parts[0].removesuffix(".py")
        for line, name in imports(path):
            parts = name.split(".")
            if mine == "__init__" or parts[0] != "tune_lora" or len(parts) == 1 or parts[1].startswith("_"):
                continue
            seen += 1
            if layer(parts[1]) > layer(mine):
                wrong.append(place(path, line, name))
    assert seen, "no imports found"
    assert not wrong, "\n".join(wrong)


def test_errors_imports_nothing_of_ours() -> None:
    names = [name for _, name in imports(ROOT / "tune_lora" / "errors.py")]
    assert names
    assert not [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def test_the_protocol_imports_the_standard_library_only() -> None:
    names = [name for _, name in imports(ROOT / "trainables" / "protocol.py")]
    assert names
    assert not [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def test_ray_stays_in_its_files() -> None:
    found = importers_of({"ray"})
    assert found, "nobody imports ray: this test looks in the wrong place"
    assert not {path: where for path, where in found.items() if path not in RAY_ONLY_IN}


def test_wandb_stays_in_tracking() -> None:
    assert set(importers_of({"wandb"})) == {"tune_lora/tracking_runs.py", "tune_lora/team_report/_server.py"}
    reports = {"tune_lora/team_report/_server.py", "tune_lora/team_report/_blocks.py"}
    assert set(importers_of({"wandb_workspaces"})) == reports


def test_torch_stays_in_the_trainables() -> None:
    assert importers_of(TORCH_FAMILY, ("trainables",)), "nobody imports torch: this test looks in the wrong place"
    assert not importers_of(TORCH_FAMILY, ("tune_lora", "search_spaces", "cluster"))


@pytest.mark.parametrize(
    "program",
    [
        "import tune_lora",
        "import tune_lora.spec",
        "import search_spaces.space",
        "import trainables.protocol",
        "import trainables.demo_character",
        "import trainables.lora.batches, trainables.lora.paths",
        "import trainables.tables, trainables.folds, trainables.aggregation",
        "import cluster.capacity",
        "from tune_lora.cli import main; main(['--help'])",
        "from tune_lora.cli import main; main(['run', '--help'])",
    ],
)
def test_a_look_loads_neither_ray_nor_torch(program: str) -> None:
    code = (
        "import sys\n"
        f"try:\n    {program}\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('LOADED', sorted({'ray', 'torch'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("LOADED []")
