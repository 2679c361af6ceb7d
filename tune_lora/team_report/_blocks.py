"""A report's plain values as the blocks of wandb-workspaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch
from typing import Any

import wandb_workspaces.expr as filters
import wandb_workspaces.reports.v2 as wr

from tune_lora.errors import one_line
from tune_lora.team_report import _markdown
from tune_lora.team_report._parts import (
    Axis,
    Block,
    Bullets,
    Callout,
    Code,
    Comparer,
    Contents,
    Curves,
    Heading,
    Importance,
    Line,
    Link,
    Panel,
    Panels,
    Paragraph,
    Parallel,
    Pictures,
    Runs,
    Scatter,
    Table,
)  # fmt: skip

WIDTH = 24
"""Columns of a grid of panels."""
_HALF = (WIDTH // 2, 10)
_SIZES: dict[type, tuple[int, int]] = {
    Parallel: (WIDTH, 14),
    Importance: (WIDTH, 12),
    Pictures: (WIDTH, 20),
    Comparer: (WIDTH, 14),
}
_HIGHEST_LINE = 10_000
"""Characters of one paragraph: a message may be a whole file."""


def blocks_of(page: Sequence[Block], entity: str, project: str) -> list[Any]:
    """Blocks for `wandb_workspaces.reports.v2.Report`, for runs of a project."""
    return [_grid(one, entity, project) if isinstance(one, Panels) else _block(one) for one in page]


@singledispatch
def _block(block: Block) -> Any:
    raise TypeError(f"no block of W&B is known for {block!r}")


@_block.register
def _(block: Heading) -> Any:
    return (wr.H1 if block.level == 1 else wr.H2)(_plain(block.text))


@_block.register
def _(block: Paragraph) -> Any:
    return wr.P(_words(block.line))


@_block.register
def _(block: Callout) -> Any:
    return wr.CalloutBlock(_words(block.line))


@_block.register
def _(block: Bullets) -> Any:
    return wr.UnorderedList([_words(line) for line in block.lines])


@_block.register
def _(block: Table) -> Any:
    return wr.MarkdownBlock(_markdown.table(block))


@_block.register
def _(_: Contents) -> Any:
    return wr.TableOfContents()


def _words(line: Line) -> list[Any]:
    """Text that is no markup: W&B keeps it apart from what is."""
    return [_word(one) for one in line]


def _word(one: Any) -> Any:
    if isinstance(one, Code):
        return wr.InlineCode(_plain(one.text))
    if isinstance(one, Link) and one.url:
        return wr.Link(text=_plain(one.text), url=one.url)
    return _plain(one.text if isinstance(one, Link) else one)


def _plain(text: str) -> str:
    # Pieces are put side by side: blanks at their ends count, and `one_line` keeps them.
    return one_line(text[:_HIGHEST_LINE])


# --- panels ----------------------------------------------------------------------------------------------------------


def _grid(block: Panels, entity: str, project: str) -> Any:
    made = [_panel(one) for one in block.panels]
    for panel, place in zip(made, _places([_SIZES.get(type(one), _HALF) for one in block.panels]), strict=True):
        panel.layout = place
    runs = wr.Runset(
        entity=entity, project=project, name=_plain(block.runs.label), filters=[_chosen(block.runs)],
        order=[wr.OrderBy("Name", ascending=True)],
    )  # fmt: skip
    return wr.PanelGrid(runsets=[runs], panels=made)


def _chosen(runs: Runs) -> filters.FilterExpr:
    if runs.ids:
        return filters.Metric("ID").isin(list(runs.ids))
    return filters.Metric("Group") == runs.group


def _places(sizes: Sequence[tuple[int, int]]) -> Iterator[wr.Layout]:
    """Panels one after the other, a new row where one does not fit."""
    x = y = height = 0
    for w, h in sizes:
        if x + w > WIDTH:
            x, y, height = 0, y + height, 0
        yield wr.Layout(x=x, y=y, w=w, h=h)
        x, height = x + w, max(height, h)


@singledispatch
def _panel(panel: Panel) -> Any:
    raise TypeError(f"no panel of W&B is known for {panel!r}")


@_panel.register
def _(panel: Scatter) -> Any:
    return wr.ScatterPlot(
        title=_plain(panel.title), x=_axis(panel.x), y=_axis(panel.y), log_x=panel.x.is_log or None,
        running_ymin=panel.best_so_far == "min" or None, running_ymax=panel.best_so_far == "max" or None,
    )  # fmt: skip


@_panel.register
def _(panel: Curves) -> Any:
    return wr.LinePlot(
        title=_plain(panel.title), x=panel.x, y=[panel.metric], title_x=panel.x, max_runs_to_show=panel.most_runs,
        smoothing_type="none",
    )  # fmt: skip


@_panel.register
def _(panel: Parallel) -> Any:
    columns = [
        _Column(
            metric=_axis(one), display_name=_plain(one.name), log=one.is_log or None, inverted=one.is_inverted or None
        )
        for one in panel.axes
    ]
    return wr.ParallelCoordinatesPlot(title=_plain(panel.title), columns=columns)


@_panel.register
def _(panel: Importance) -> Any:
    return wr.ParameterImportancePlot(with_respect_to=panel.metric)


@_panel.register
def _(panel: Pictures) -> Any:
    return wr.WeavePanelSummaryTable(table_name=panel.name)


@_panel.register
def _(_: Comparer) -> Any:
    return wr.RunComparer(diff_only=True)


def _axis(axis: Axis) -> Any:
    return wr.Config(axis.name) if axis.section == "config" else wr.SummaryMetric(axis.name)


class _Column(wr.ParallelCoordinatesPlotColumn):
    """A column whose configuration name may have dots in itself, as sampled names do: W&B keeps such a value under
    ``optimizer.lr.value``, while wandb-workspaces asks for the ``lr`` of a nested ``optimizer``."""

    def _to_model(self) -> Any:
        made = super()._to_model()
        if isinstance(self.metric, wr.Config):
            made.accessor = f"config:{self.metric.name}.value"
        return made
