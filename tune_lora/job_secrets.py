"""Which secrets a submitted study takes along, and how they are kept from being read on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cluster import job as on_cluster
from trainables.redaction import MASK
from tune_lora.errors import InputError, InputErrors
from tune_lora.spec import BASES, StudySpec
from tune_lora.storage_url import VARIABLE, written

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_OF_STORES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
)


def token_of_cluster() -> str | None:
    """The token that this process is let in with; None where it sends none."""
    return on_cluster.token() if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" else None


def sealed(secrets: Mapping[str, str]) -> dict[str, str]:
    """Secrets as one variable that only who has the cluster's token can read; nothing where there are none.

    Raises:
        InputError: there are secrets and no token to seal them with.
    """
    if not secrets:
        return {}
    token = token_of_cluster()
    if token is None:
        raise InputError(
            f"--env: got {', '.join(sorted(secrets))} for a cluster without a token, where everybody could read them; "
            "must be set on the nodes, or the cluster be started with RAY_AUTH_MODE=token"
        )
    return {on_cluster.SEALED: on_cluster.sealed(secrets, token)}


def wanted(asked: StudySpec, named: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Values of environment variables that go along: those that are `named`, and those that the study needs and that
    are set here. Where the cluster has no token, what nobody named stays here, which the second value says.

    Raises:
        InputErrors: a named one is not set; passwords of two databases stand in the file.
    """
    asked_for = list(dict.fromkeys(named))
    if unset := [name for name in asked_for if name not in os.environ]:
        raise InputErrors(f"--env: {name} is not set here; must be, so that its value can be sent" for name in unset)
    useful = [name for name in needed(asked) if name in os.environ and name not in asked_for]
    password = _password(asked)
    dropped = []
    if useful and not password and not asked_for and token_of_cluster() is None:
        dropped = [f"{', '.join(useful)}: not sent, since the cluster has no token; set it on the nodes"]
        useful = []
    found = {name: os.environ[name] for name in (*asked_for, *useful)}
    return found | ({VARIABLE: password} if password else {}), dropped


def needed(asked: StudySpec) -> list[str]:
    """Names of the variables that a study can make use of."""
    plain = asked.as_mapping(passwords=True)
    urls = [*_urls(plain)]
    found = _REFERENCE.findall(" ".join(urls))
    if any(MASK in url for url in urls):
        found.append(VARIABLE)
    if asked.tracking.wandb in ("auto", "online"):
        found.append("WANDB_API_KEY")
    if asked.trainer == "llm_lora" and asked.base not in BASES and not Path(asked.base).is_absolute():
        found.append("HF_TOKEN")
    if any(str(url).startswith("s3://") for url in urls):
        found += _OF_STORES
    return list(dict.fromkeys(found))


def _urls(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "://" in value:
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for one in inner:
        yield from _urls(one)


def _password(asked: StudySpec) -> str | None:
    """A password that stands in the study file: it travels sealed, and ``***`` stands in the file that is sent."""
    found = set()
    for url in _urls(asked.as_mapping(passwords=True)):
        password = urlsplit(url).password
        if password is None or password == MASK or _REFERENCE.fullmatch(password):
            if password is None and written(url) != url:
                raise InputError(f"storage: {written(url)} holds a password that cannot be sent; must be ${{NAME}}")
            continue
        found.add(unquote(password))
    if len(found) > 1:
        raise InputError("storage: the study names databases with several passwords; must be ${NAME} of variables")
    return next(iter(found), None)
