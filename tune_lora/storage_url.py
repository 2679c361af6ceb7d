"""Storage URLs and their passwords: what is opened, and what is written down of it.

A password is best left out of a study file: ``postgresql://tuner:${DB_PASSWORD}@host/studies`` names an environment
variable. One that stands in the file is used, and written as ``***`` wherever the study is written; a URL with ``***``
takes its password from `VARIABLE`, else none, so that the database's own means apply (``PGPASSWORD``, ``~/.pgpass``).
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import quote

import yaml

from search_spaces import documents
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


def named_in(folder: Path) -> tuple[str, str] | None:
    """The storage that a results folder's study.yaml names, and the study's name; None where it names none.

    Raises:
        InputError: study.yaml cannot be read.
    """
    file = folder / "study.yaml"
    try:
        content = documents.parse(file.read_text("utf-8"))[0]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}); must be a study file") from None
    if not isinstance(content, dict) or not content.get("storage"):
        return None
    return str(content["storage"]), str(content.get("name") or folder.resolve().name)


def with_driver(url: str) -> str:
    """The URL with psycopg named as what talks to PostgreSQL, where nothing is named and it is installed."""
    scheme, colon, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres"):
        return url
    driver = "+psycopg" if importlib.util.find_spec("psycopg") is not None else ""
    return f"postgresql{driver}{colon}{rest}"


def _value(reference: re.Match[str]) -> str:
    found = os.environ.get(reference[1])
    if found is None:
        raise InputError(f"storage: {reference[0]} is not set; must be an environment variable with the password")
    return quote(found, safe="")


def _with_masked_password(url: str) -> str:
    password = quote(os.environ.get(VARIABLE, ""), safe="")
    url = url.replace(f":{MASK}@", f":{password}@" if password else "@", 1)
    return url.replace(f"password={MASK}", f"password={password}", 1) if password else _MASKED_QUERY.sub("", url)
