"""Errors cross from a worker to whoever reads them."""

import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.protocol import Cause, TrialFailure
from tune_lora.errors import LONGEST, InputError, InputErrors, nearest


def test_several_mistakes_found_on_a_worker_read_as_they_were_written():
    received = pickle.loads(pickle.dumps(InputErrors(["a.png: no caption", "b.png: no caption"])))
    assert received.mistakes == ("a.png: no caption", "b.png: no caption")
    assert str(received) == "a.png: no caption\nb.png: no caption"


def test_a_failure_on_a_worker_keeps_its_cause_and_its_metrics():
    received = pickle.loads(pickle.dumps(TrialFailure(Cause.OUT_OF_MEMORY, "asked for 3 GiB", {"loss": 0.5})))
    assert (received.cause, received.message) == (Cause.OUT_OF_MEMORY, "asked for 3 GiB")
    assert received.metrics == {"loss": 0.5}
    assert str(received) == "asked for 3 GiB"


@given(st.text())
def test_a_mistake_is_one_line_whatever_it_quotes(text):
    for told in (str(InputError(text)), *InputErrors([text, "b.png: no caption"]).mistakes):
        assert len(told.splitlines()) <= 1
        assert len(told) <= LONGEST
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in told)
        assert str(InputError(told)) == told


def test_a_line_is_told_as_it_was_written():
    assert str(InputError("Bilder/größe 🦜　1.png: no caption")) == "Bilder/größe 🦜　1.png: no caption"


@pytest.mark.parametrize(
    ("given", "told"), [("a\nb", r"a\nb"), ("\x1b[2J", r"\x1b[2J"), ("gnp.\u202ex", r"gnp.\u202ex")]
)
def test_what_a_terminal_obeys_is_escaped(given, told):
    assert str(InputError(f"study.yaml: got {given}")) == f"study.yaml: got {told}"


def test_of_a_long_mistake_place_and_advice_are_kept():
    told = str(InputError(f"study.yaml:3: name: got {'x' * 10_000!r}; must be a word"))
    assert told.startswith("study.yaml:3: name: got 'xxx")
    assert " ... " in told
    assert told.endswith("; must be a word")


def test_of_a_long_list_the_number_is_told():
    told = nearest("setting_7", [f"setting_{n}" for n in range(100)])
    assert told.startswith("did you mean 'setting_7'? (available: setting_0, setting_1, ")
    assert told.endswith(", and 75 more)")
    assert nearest("a", ["b", "c"]) == "(available: b, c)"
    assert nearest("a", ["b", 7, True]) == "(available: 7, True, b)"  # YAML has names that are no words
