"""Where an expression may change its mind about a number: the thresholds it compares that number with."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from search_spaces.expressions import Expression


def thresholds(expression: Expression, name: str) -> frozenset[float] | None:
    """The numbers that `name` is compared with; None where it is used in another way (arithmetic, functions, another
    parameter on the other side).
    """
    found: set[float] = set()
    if _collect(expression.tree, name, found):
        return frozenset(found)
    return None


def _collect(node: ast.AST, name: str, found: set[float]) -> bool:
    """Adds thresholds below a node; False where `name` is used otherwise."""
    if isinstance(node, ast.Name):
        return node.id != name
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        others = [side for side in sides if not (isinstance(side, ast.Name) and side.id == name)]
        if len(others) < len(sides):
            numbers = [number for side in others for number in _numbers(side)]
            found |= {number for number in numbers if number is not None}
            return None not in numbers
    return all(_collect(child, name, found) for child in ast.iter_child_nodes(node))


def _numbers(node: ast.AST) -> Iterable[float | None]:
    """The numbers of a literal or of a list of literals; None stands for what is none. Texts compare with no number."""
    if isinstance(node, ast.List | ast.Tuple):
        for item in node.elts:
            yield from _numbers(item)
        return
    sign = 1.0
    while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign, node = (-sign if isinstance(node.op, ast.USub) else sign), node.operand
    if not isinstance(node, ast.Constant):
        yield None
    elif isinstance(node.value, int | float):
        yield sign * node.value
