"""Passwords and tokens out of what is written down or shown. Pure; the standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

MASK = "***"
_SHORTEST = 8
"""Characters of a value that is taken for a secret: a shorter one (a mode, ``true``) would be found in any text."""
_SECRET_NAME = re.compile(r"(?i)(key|token|secret|passw(or)?d|credentials?)(_|$)|(^|_)(pass|auth)$|_pwd$")
_OPEN_NAMES = frozenset({"SSH_AUTH_SOCK", "RAY_AUTH_MODE"})
# Up to the last @ before a blank: a password that holds one, unquoted, is hidden whole.
_IN_USER_INFO = re.compile(r"(://[^:/?#@\s]*):([^\s'\"]*)@")
_SECRET_WORD = r"password|passwd|pwd|secret|token|key(?![a-z])|credential|signature|(?<![a-z])sig(?![a-z])"
_OPEN_KEYS = r"(?:sslkey|credential_kind)="
"""The name of a file, and a way to get credentials."""
_IN_QUERY = re.compile(rf"(?i)([?&](?!{_OPEN_KEYS})[\w.%-]*(?:{_SECRET_WORD})[\w.%-]*=)([^&\s'\"]*)")
_SECRET_KEY = re.compile(rf"(?i)(?!{_OPEN_KEYS}).*(?:{_SECRET_WORD})", re.DOTALL)
_REFERENCE = re.compile(r"\$\{\w+\}")


def without_password(url: str) -> str:
    """A URL (or a text with URLs in it) as it may be shown: passwords are ``***``, references such as ``${NAME}`` to
    the environment stay."""
    return _IN_QUERY.sub(_masked_query, _IN_USER_INFO.sub(_masked_user, url))


def _masked_user(found: re.Match[str]) -> str:
    return found[0] if _REFERENCE.fullmatch(found[2]) else f"{found[1]}:{MASK}@"


def _masked_query(found: re.Match[str]) -> str:
    return found[0] if _REFERENCE.fullmatch(found[2]) else f"{found[1]}{MASK}"


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text without passwords in URLs and without the values of environment variables that are named as secrets are
    (``…_KEY``, ``…_TOKEN``, ``…SECRET…``, ``…PASSWORD``, ``…CREDENTIALS``)."""
    held = os.environ if environment is None else environment
    secrets = {value for name, value in held.items() if is_secret(name) and len(value) >= _SHORTEST}
    for value in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, MASK)
    return without_password(text)


def is_secret_query(key: str) -> bool:
    """Whether a key in the query of a URL stands before a secret (``client_secret``, ``access_key``, ``sig``)."""
    return _SECRET_KEY.match(f"{key}=") is not None


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return name not in _OPEN_NAMES and _SECRET_NAME.search(name) is not None
