"""The parts that a page holds in itself: its programs, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from markupsafe import Markup

OWN = ("data.js", "figures.js", "draw.js", "table.js", "trial.js", "start.js")
"""Our program, in the order of its parts."""
LIBRARY = "plotly-basic.min.js"
"""plotly.js 4.1.1, the basic bundle of the npm package plotly.js-basic-dist-min as it was published (MIT): a quarter of
the whole library's size, without code that makes code of strings."""


@dataclass(frozen=True)
class Programs:
    """The page's scripts, as they stand in it. `policy` is its Content-Security-Policy: scripts run by their hash only,
    and nothing is loaded from anywhere."""

    first: Markup
    library: Markup
    own: Markup

    @property
    def policy(self) -> str:
        hashes = " ".join(f"'sha256-{_hash(text)}'" for text in (self.first, self.library, self.own))
        return (
            f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {hashes}; "
            "base-uri 'none'; form-action 'none'"
        )


@cache
def programs() -> Programs:
    """Read once."""
    own = "(function () {\n" + "\n".join(_text(name) for name in OWN) + "\n})();"
    return Programs(Markup(_text("first.js")), Markup(_text(LIBRARY)), Markup(own))  # our own files


def _text(name: str) -> str:
    text = files("tune_lora.report").joinpath(name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{name} cannot stand inside a script element")
    return text


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
