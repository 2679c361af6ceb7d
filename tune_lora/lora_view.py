"""What a terminal shows of a LoRA that was scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune_lora import wording

if TYPE_CHECKING:
    from trainables.lora.lora_evaluation import LoraEvaluation

_OPEN_END = 1.0  # a cosine's own end: a band that reaches it has no upper limit


def evaluation(found: LoraEvaluation) -> RenderableType:
    """The file, every measure with its target, the failed images, and what to know of the numbers."""
    table = Table("measure", "untrained base", "this LoRA", "target", "", box=None, pad_edge=False, header_style="dim")
    for name, value in found.metrics.items():
        inside = found.in_band(name)
        verdict = Text("") if inside is None else Text("in", style="green") if inside else Text("out", style="yellow")
        cells = (wording.number(found.baseline.get(name)), wording.number(value), _band(found, name))
        table.add_row(name, *cells, verdict)
    parts: list[RenderableType] = [Text(line) for line in _facts(found.facts)]
    parts += [Text(""), table, Text("")]
    parts += [Text(f"failed: {line}", style="red") for line in found.failures] or [Text("no image failed")]
    parts += [Text(note, style="yellow") for note in found.notes]
    return Group(*parts, Text(f"sheet: {found.sheet}"))


def _band(found: LoraEvaluation, name: str) -> str:
    if name not in found.bands:
        return ""
    low, high = (wording.number(end) for end in found.bands[name])
    return f"from {low}" if found.bands[name][1] >= _OPEN_END else f"{low} to {high}"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    """The file in two lines, alpha with its ratio to the rank."""
    rank, alpha = facts["rank"], facts["alpha"]
    ranks = f" ({', '.join(map(str, facts['ranks']))} by module)" if len(facts["ranks"]) > 1 else ""
    kinds = [f"{facts['modules']} modules"]
    kinds += [f"{facts['convolutions']} convolutions"] if facts["convolutions"] else []
    kinds += ["DoRA"] if facts["dora"] else []
    size = f"rank {rank}{ranks}, alpha {wording.number(alpha)} (ratio {alpha / rank:.3f})"
    base = facts.get("base") or "unknown"
    version = f" ({facts['base_version']})" if "base_version" in facts else ""
    trained = [f"{facts[name]} {name}" for name in ("epochs", "steps") if name in facts]
    trained += ["{}x{} pixels".format(*facts["resolution"])] if facts["resolution"] else []
    return [
        f"{size}; {', '.join(kinds)}",
        f"base {base}{version}; trained with {', '.join([facts['trainer'], *trained])}",
    ]
