"""Storage URLs and their passwords: what is opened, and what is written down of it.

A password is best left out of a study file: ``postgresql://tuner:${DB_PASSWORD}@host/studies`` names an environment
variable. One that stands in the file is used, and written as ``***`` wherever the study is written; a URL with ``***``
takes its password from `VARIABLE`, else none, so that the database's own means apply (``PGPASSWORD``, ``~/.pgpass``).
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from trainables.redaction import MASK, without_password
from tune_lora.errors import InputError

VARIABLE = "TUNE_LORA_STORAGE_PASSWORD"
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_MASKED_QUERY = re.compile(rf"(?<=[?&])password={re.escape(MASK)}&?")


def written(url: str) -> str:
    """The URL as it is stored and shown."""
    return without_password(url)


def opened(url: str) -> str:
    """The URL as it is opened.

    Raises:
        InputError: it names an environment variable that is not set.
    """
    return _with_masked_password(_REFERENCE.sub(_value, url))


def _value(reference: re.Match[str]) -> str:
    found = os.environ.get(reference[1])
    if found is None:
        raise InputError(f"storage: {reference[0]} is not set; must be an environment variable with the password")
    return quote(found, safe="")


def _with_masked_password(url: str) -> str:
    password = quote(os.environ.get(VARIABLE, ""), safe="")
    url = url.replace(f":{MASK}@", f":{password}@" if password else "@", 1)
    return url.replace(f"password={MASK}", f"password={password}", 1) if password else _MASKED_QUERY.sub("", url)
