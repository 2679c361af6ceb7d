"""People judge pairs of pictures: what they are shown, the page and its server on loopback."""

from __future__ import annotations

from tune_lora.rating._server import serve
from tune_lora.rating._session import Candidate, Session, candidates

__all__ = ["Candidate", "Session", "candidates", "serve"]
