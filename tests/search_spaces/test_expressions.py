"""Expressions: what they compute, and that they are safe and explain themselves."""

from __future__ import annotations

import pickle

import pytest

from search_spaces.expressions import ExpressionError, parse, unknown_names


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("int(network_dim * network_alpha_ratio)", {"network_dim": 128, "network_alpha_ratio": 0.85}, 108),
        ("abs(a - b) >= 1 and not a > 3", {"a": 1, "b": 3}, True),
        ("min(a, b) if a > 1 else max(a, b)", {"a": 0, "b": 5}, 5),
        ("optimizer in ('AdamW', 'Lion')", {"optimizer": "Lion"}, True),
        ("round(a / 3, 2)", {"a": 2}, 0.67),
        ("optimizer.lr * 2 + training.batch.size", {"optimizer.lr": 0.5, "training.batch.size": 32}, 33.0),
    ],
)
def test_value(text: str, values: dict, expected: object) -> None:
    assert parse(text)(values) == expected


def test_a_dotted_name_is_the_parameter_of_that_name_and_no_other() -> None:
    expression = parse("optimizer.lr > 0.1")
    assert expression.names == {"optimizer.lr"}
    assert expression({"optimizer.lr": 1.0, "optimizer_lr": 0.0, "optimizer": {"lr": 0.0}}) is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a >", "is not an expression"),
        ("", "is not an expression"),
        ("__import__('os').system('true')", "calls"),
        ("open('x')", "calls 'open'"),
        ("[b for b in a]", "uses listcomp"),
        ("(lambda: 1)()", "calls"),
        ("a[0]", "uses subscript"),
        ("'x'.upper", "uses attribute"),
        ("a := 3", "is not an expression"),
        ("rund(a)", "did you mean 'round'?"),
        ("max(*a)", "starred"),
    ],
)
def test_what_is_no_expression_is_refused_when_it_is_read(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=r"(?s).*") as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "values"), [("a > 1", {"a": "AdamW"}), ("1 / a", {"a": 0}), ("int(a)", {"a": "x"}), ("a + b", {"a": 1})]
)
def test_values_that_do_not_go_together_are_named(text: str, values: dict) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text)(values)
    assert repr(text) in str(error.value)
    assert "a=" in str(error.value)


def test_an_unknown_variable_comes_with_the_nearest_right_one() -> None:
    (line,) = unknown_names(parse("network_dmi > 3"), {"network_dim", "learning_rate"})
    assert "'network_dmi'" in line
    assert "did you mean 'network_dim'?" in line


def test_it_can_be_sent_to_another_process() -> None:
    expression = parse("a * 2 > b")
    assert pickle.loads(pickle.dumps(expression)) == expression
