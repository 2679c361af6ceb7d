"""What may stand in a study file as the place of its mirror."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from trainables.redaction import is_secret_query

SUCH_AS = "a place in object storage such as s3://bucket/prefix or s3://bucket?endpoint_override=host:9000"


def mistake(uri: str) -> str | None:
    """Why a URI is none, or must not be written down because it holds what belongs into the environment; else None."""
    try:
        parts = urlsplit(uri)
        keys = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError as error:
        return f"{error}; must be {SUCH_AS}"
    if "@" in parts.netloc:
        return "got credentials in it; must be without: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if secret := next(filter(is_secret_query, keys), None):
        return (
            f"got {secret!r} in it; must be without: credentials belong into the environment, where the store's own "
            "client finds them"
        )
    if not parts.scheme or "://" not in uri:
        return f"got {uri!r}; must be {SUCH_AS}"
    return None
