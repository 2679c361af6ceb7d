"""Short names: the last part of a dotted name, where only one name ends so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tune_lora.errors import InputError, InputErrors, nearest


def matching(name: str, names: Iterable[str]) -> list[str]:
    """The names that `name` may mean: itself where it is one of them, else those that end in ``.name``, sorted."""
    known = set(names)
    return [name] if name in known else sorted(one for one in known if one.endswith(f".{name}"))


def full(name: str, names: Iterable[str], what: str) -> str:
    """The one name that `name` means: of ``lr`` the name ``optimizer.lr``.

    Raises:
        InputError: none is called so, or several end so; `what` begins the message, such as ``hyperparameter 'x'``.
    """
    known = list(names)
    found = matching(name, known)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{what} may be one of {', '.join(found)}; must be a whole name")
    raise InputError(f"{what} is unknown; {nearest(name, known) or 'there is none'}")


def all_full(given: Iterable[str], names: Iterable[str], what: str) -> list[str]:
    """`full` of several, each once. Raises InputErrors with a line for each that is none."""
    known, found, mistakes = list(names), list[str](), list[str]()
    for name in given:
        try:
            found.append(full(name, known, f"{what} {name!r}"))
        except InputError as error:
            mistakes.append(str(error))
    if mistakes:
        raise InputErrors(mistakes)
    return list(dict.fromkeys(found))


def short(names: Iterable[str]) -> dict[str, str]:
    """Each name by the last of its parts where no other name ends so, whole where one does.

    A name below another name (``network_dim.mid_block`` beside ``network_dim``) or with a number at its end means
    nothing without its stem, and stays whole.
    """
    known = list(dict.fromkeys(names))
    ends = Counter(name.rpartition(".")[2] for name in known)

    def shown(name: str) -> str:
        stem, _, last = name.rpartition(".")
        speaks = ends[last] == 1 and bool(last) and not last.isdigit() and stem not in known
        return last if speaks else name

    return {name: shown(name) for name in known}
