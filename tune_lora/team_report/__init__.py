"""The team report: a study's W&B Report, made from its records and the runs that follow it; made again, it is the same
report brought up to date.

`page` says what is in it, as plain values and without W&B; `_blocks` makes W&B's blocks of that, `_server` alone talks
to the server, `publish` puts them together.
"""

from __future__ import annotations

from tune_lora.team_report._page import page
from tune_lora.team_report._publish import Published, publish

__all__ = ["Published", "page", "publish"]
