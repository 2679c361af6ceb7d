"""Where a rule that compares numbers with each other changes its mind, found by root search in one of them."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from search_spaces.constraints import Clause
from search_spaces.domains import Number
from search_spaces.expressions import Expression, ExpressionError

SCANNED = 16
"""Parts into which a range is cut to look for roots."""

_HALVINGS = 50
_GOLDEN = (math.sqrt(5) - 1) / 2
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)

Margin = Callable[[float], float]
"""Left side minus right side of a comparison, as a function of a position (0 to 1) in the number's range."""


def margins(clause: Clause) -> Iterator[Expression]:
    """Left side minus right side of every comparison in a clause."""
    for expression in (clause.when, clause.must):
        for node in ast.walk(expression.tree) if expression else ():
            if isinstance(node, ast.Compare):
                for (left, right), kind in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
                    if isinstance(kind, _ORDERED):
                        yield _difference(left, right)


def _difference(left: ast.expr, right: ast.expr) -> Expression:
    tree = ast.fix_missing_locations(ast.BinOp(left, ast.Sub(), right))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}
    return Expression(ast.unparse(tree), frozenset(names), frozenset(), tree)


def candidates(domain: Number, functions: Iterable[Margin]) -> Iterator[float]:
    """Values of a number between which no comparison changes its sign, as far as a scan can tell: one between each two
    neighbouring roots, and the roots.
    """
    roots = sorted({root for function in functions for root in _roots(function)})
    edges = sorted({0.0, 1.0, *roots})
    middles = [(left + right) / 2 for left, right in pairwise(edges)]
    yield from dict.fromkeys(domain.at(position) for position in (*middles, *roots))


def _roots(function: Margin) -> Iterator[float]:
    """Positions where a function crosses or touches 0. Those of texts and of divisions by zero are none."""
    try:
        places = [index / SCANNED for index in range(SCANNED + 1)]
        heights = [function(place) for place in places]
        for (left, right), (low, high) in zip(pairwise(places), pairwise(heights), strict=True):
            if (low < 0) != (high < 0):
                yield _crossing(function, left, right)
        for index in range(len(places)):
            yield from _dip(function, places, heights, index)
    except ExpressionError:
        return


def _dip(function: Margin, places: Sequence[float], heights: Sequence[float], index: int) -> Iterator[float]:
    """Both crossings of a narrow dip through 0 that the scan stepped over, or where it touches."""
    left, right = max(index - 1, 0), min(index + 1, len(places) - 1)
    sides = {height < 0 for height in heights[left : right + 1]}
    if len(sides) > 1 or any(abs(heights[index]) > abs(heights[side]) for side in (left, right)):
        return
    sign = -1 if heights[index] < 0 else 1
    lowest = _lowest(lambda place: sign * function(place), places[left], places[right])
    if sign * function(lowest) < 0:
        yield _crossing(function, places[left], lowest)
        yield _crossing(function, lowest, places[right])
    else:
        yield lowest


def _crossing(function: Margin, left: float, right: float) -> float:
    below = function(left) < 0
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        left, right = (middle, right) if (function(middle) < 0) == below else (left, middle)
    return right


def _lowest(function: Margin, left: float, right: float) -> float:
    """Golden-section search for a minimum."""
    for _ in range(_HALVINGS):
        span = _GOLDEN * (right - left)
        first, second = right - span, left + span
        left, right = (left, second) if function(first) < function(second) else (first, right)
    return (left + right) / 2
