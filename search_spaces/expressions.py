"""Expressions of a space: parsed once, checked when the space is loaded, evaluated by simpleeval and never by ``eval``.

Arithmetic, comparisons, ``and``/``or``/``not``, ``a if b else c``, numbers and texts, membership in a list of literals,
and the functions of `FUNCTIONS`. A dotted parameter is written as it is named: ``optimizer.lr > 0.01``.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from simpleeval import EvalWithCompoundTypes, InvalidExpression

from tune_lora.errors import InputError, nearest

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs, "min": min, "max": max, "int": int, "round": round, "float": float,
}  # fmt: skip

_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call, ast.Name, ast.Constant,
    ast.Tuple, ast.List, ast.Load, ast.And, ast.Or, ast.Not, ast.UAdd, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div,
    ast.FloorDiv, ast.Mod, ast.Pow, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip


class ExpressionError(InputError):
    """An expression that cannot be parsed or evaluated."""


@dataclass(frozen=True)
class Expression:
    """One expression. `names` are the variables it reads, `constants` the numbers it mentions."""

    text: str
    names: frozenset[str]
    constants: frozenset[float]
    tree: ast.expr

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value, given every name in `names`.

        Raises:
            ExpressionError: a name is missing, or the values do not go together (a text compared with a number,
            division by zero).
        """
        evaluator = EvalWithCompoundTypes(names=values, functions=dict(FUNCTIONS))
        try:
            return evaluator.eval(self.text, previously_parsed=self.tree)
        except (InvalidExpression, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            shown = ", ".join(f"{name}={values[name]!r}" for name in sorted(self.names) if name in values)
            raise ExpressionError(f"{self.text!r} cannot be evaluated with {shown or 'no values'}: {error}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def parse(text: Any) -> Expression:
    """Parses an expression.

    Raises:
        ExpressionError: it is no expression, or uses something that expressions do not offer.
    """
    source = str(text).strip()
    try:
        with warnings.catch_warnings():  # Python's remarks on style, such as on `1if`, would go to the terminal
            warnings.simplefilter("ignore")
            joined = _DottedNames().visit(ast.parse(source, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: brackets in brackets
        reason = getattr(error, "msg", str(error)) or "it is nested too deeply"
        raise ExpressionError(f"{source!r} is not an expression: {reason}") from None
    _check(joined, source)
    nodes = list(ast.walk(joined))
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    names = frozenset(node.id for node in nodes if isinstance(node, ast.Name) and id(node) not in called)
    return Expression(source, names, _constants(nodes), joined)


def unknown_names(expression: Expression, available: Collection[str]) -> list[str]:
    """One line for each variable that nothing defines."""
    return [
        f"unknown variable {name!r} in {expression.text!r}; {nearest(name, available)}"
        for name in sorted(expression.names - set(available))
    ]


class _DottedNames(ast.NodeTransformer):
    """``optimizer.lr`` becomes one name, so that it is looked up as the parameter that is called so."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        value = self.visit(node.value)
        if isinstance(value, ast.Name):
            return ast.copy_location(ast.Name(id=f"{value.id}.{node.attr}", ctx=ast.Load()), node)
        return node


def _check(tree: ast.expr, source: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node, source)
        elif not isinstance(node, _ALLOWED):
            what = type(node).__name__.lower()
            raise ExpressionError(
                f"{source!r} uses {what}; must be arithmetic, comparisons, and/or/not, {_functions()}"
            )


def _check_call(node: ast.Call, source: str) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in FUNCTIONS:
        raise ExpressionError(f"{source!r} calls {name!r}; {nearest(name, FUNCTIONS)}")
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise ExpressionError(f"{source!r} gives {name} named or starred arguments; must be plain ones")


def _functions() -> str:
    return ", ".join(f"{name}()" for name in FUNCTIONS)


def _constants(nodes: Collection[ast.AST]) -> frozenset[float]:
    found = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return frozenset(float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool))
