"""Storage URLs and their passwords: what is opened, and what is written down of it.

A password is best left out of a study file: ``postgresql://tuner:${DB_PASSWORD}@host/studies`` names an environment
variable. One that stands in the file is used, and written as ``***`` wherever the study is written; a URL with ``***``
takes its password from `VARIABLE`, else none, so that the database's own means apply (``PGPASSWORD``, ``~/.pgpass``).

A results folder may be a stranger's. Whoever is asked for a study is told passwords, so of the servers that a folder
names only the one is asked that the user has named as well, in `OWN`, and by that URL.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from urllib.parse import quote

import yaml
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from search_spaces import documents
from trainables.redaction import MASK, without_password
from tune_lora.errors import InputError
from tune_lora.storage_files import database_file, is_server

VARIABLE = "TUNE_LORA_STORAGE_PASSWORD"
OWN = "TUNE_LORA_STORAGE"
"""The environment variable with the URL of the user's own database."""
_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306}
_REFERENCE = re.compile(r"\$\{(\w+)\}")
_MASKED_QUERY = re.compile(rf"(?<=[?&])password={re.escape(MASK)}&?")


def written(url: str) -> str:
    """The URL as it is stored and shown."""
    return without_password(url)


def opened(url: str) -> str:
    """The URL as it is opened, where the user has given it. One with ``***`` that leads where `OWN` does is that.

    Raises:
        InputError: it names an environment variable that is not set, or `OWN` is no URL.
    """
    url = (_own(url) if MASK in url else None) or url
    return _with_masked_password(_REFERENCE.sub(_value, url))


def opened_for(folder: Path, url: str) -> str:
    """The URL as it is opened, where a results folder's study.yaml has given it. Nothing in it is filled in.

    Raises:
        InputError: it is no file, and no server that the user has named in `OWN`.
        sqlalchemy.exc.ArgumentError: it is no URL.
    """
    if not is_server(url):
        if (file := database_file(url)) is None:
            raise InputError(f"{folder / 'study.yaml'}: its storage {written(url)} must be a file or a server")
        return URL.create("sqlite", database=str(file)).render_as_string()  # its options are left out
    if (own := _own(url)) is None:
        held = written(os.environ.get(OWN, ""))
        raise InputError(
            f"{folder / 'study.yaml'}: its storage {written(url)} is a server that you have not named; if it is yours, "
            f"set {OWN} to its URL{f' (it is {held})' if held else ''}"
        )
    return opened(own)


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


def _own(url: str) -> str | None:
    """The user's own URL, where it leads to the database that `url` leads to."""
    own = os.environ.get(OWN)
    if not own:
        return None
    if (place := _place(own)) is None:
        raise InputError(
            f"{OWN}: got {written(own)!r}; must be a URL such as postgresql://me:${{PASSWORD}}@host/studies"
        )
    return own if place == _place(url) else None


def _place(url: str) -> tuple[str | None, int | None, str | None] | None:
    """Host, port and database; None: it is no URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is no number
        return None
    return parsed.host, parsed.port or _PORTS.get(parsed.get_backend_name()), parsed.database


def _value(reference: re.Match[str]) -> str:
    found = os.environ.get(reference[1])
    if found is None:
        raise InputError(f"storage: {reference[0]} is not set; must be an environment variable with the password")
    return quote(found, safe="")


def _with_masked_password(url: str) -> str:
    password = quote(os.environ.get(VARIABLE, ""), safe="")
    url = url.replace(f":{MASK}@", f":{password}@" if password else "@", 1)
    return url.replace(f"password={MASK}", f"password={password}", 1) if password else _MASKED_QUERY.sub("", url)
