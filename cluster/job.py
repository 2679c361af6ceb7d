"""What a submitted study does on the cluster before `tune-lora` itself starts; a copy of it lies in every package.

It runs wherever Ray runs, with or without tune-lora there, so it imports the standard library only, and what opens
sealed values where there are some.
"""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

MODULE = "tune_lora_job"
"""The name of the copy."""
DESCRIPTION = "job.json"
STUDY = "study.yaml"
INPUTS = "inputs"
"""What came along, in the package and then beside the results: ``<digest>/<name>``, and ``code/``."""
CODE = "code"
PYTHON, SEALED = "TUNE_LORA_PYTHON", "TUNE_LORA_SEALED"
NEEDS = ("optuna", "pydantic", "ray", "rich", "simpleeval", "torch", "typer", "yaml")
"""Packages without which no study runs, looked for before it is tried."""
MISTAKE = 2
_PURPOSE = b"tune-lora: environment of a job"


def prepare() -> None:
    """Ray calls it at the start of each of the job's processes: unseals what was sent along into the environment, and
    notes the Python that Ray itself runs in, which no ``PATH`` need have."""
    os.environ[PYTHON] = sys.executable
    if sealed_values := os.environ.get(SEALED):
        os.environ.update(unsealed(sealed_values, token()))


def token() -> str | None:
    """The token by which this machine is let into the Ray cluster, where Ray looks for it; None where there is none."""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def sealed(values: Mapping[str, str], secret: str) -> str:
    """Values by name as a text that only who has the `secret` can read. Ray writes the environment of a job into its
    logs and its own storage; what is in there must be nobody's password."""
    salt = os.urandom(16)
    text = _cipher(secret, salt).encrypt(json.dumps(dict(values)).encode())
    return f"{base64.urlsafe_b64encode(salt).decode()}.{text.decode()}"


def unsealed(text: str, secret: str | None) -> dict[str, str]:
    """What was `sealed`.

    Raises:
        RuntimeError: the secret is absent or another.
    """
    from cryptography.fernet import InvalidToken

    if secret is None:
        raise RuntimeError("this node has no Ray token; the job's environment was sealed with the cluster's")
    salt, _, rest = text.partition(".")
    try:
        found: dict[str, str] = json.loads(_cipher(secret, base64.urlsafe_b64decode(salt)).decrypt(rest.encode()))
    except (InvalidToken, ValueError):
        raise RuntimeError("the job's environment was sealed with another Ray token than this node's") from None
    return found


def _cipher(secret: str, salt: bytes) -> Any:
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), 32, salt, _PURPOSE).derive(secret.encode())
    return Fernet(base64.urlsafe_b64encode(key))


def main() -> None:
    """The job's entrypoint, in the unpacked package: checks what is installed, puts what came along beside the results,
    and becomes ``tune-lora run``."""
    package = Path(__file__).parent
    about = json.loads((package / DESCRIPTION).read_text("utf-8"))
    _check_installed(about["version"] if about["expects_installed"] else None)
    try:
        settle_inputs(package / INPUTS, Path(about["folder"]) / INPUTS)
    except OSError as error:
        _end(f"results: cannot write to {about['folder']} on {os.uname().nodename}: {error.strerror}")
    # Another node that shares this one's folder for Ray unpacks the package anew, and the folder is another one then.
    os.chdir(about["folder"])
    # In place of this process, so that a signal to the job reaches the study itself.
    command = [sys.executable, "-m", "tune_lora.cli", "run", str(package / STUDY), *about["arguments"]]
    os.execv(sys.executable, command)


def settle_inputs(came: Path, beside: Path) -> None:
    """Puts what came along beside the results, where all nodes see it and where it stays when the job is gone.

    Data lie under a digest of their content, so that what is there is right. Code is replaced.
    """
    beside.mkdir(parents=True, exist_ok=True)
    for part in sorted(came.iterdir()) if came.is_dir() else ():
        target = beside / part.name
        if target.exists() and part.name != CODE:
            continue
        scratch = beside / f".{part.name}-{os.getpid()}.part"
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(part, scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)


def _check_installed(version: str | None) -> None:
    """`version` is the one that the node must have installed; None: it came along."""
    if version is not None:
        try:
            there = importlib.metadata.version("tune-lora")
        except importlib.metadata.PackageNotFoundError:
            there = None
        if there != version:
            has = f"tune-lora {there}" if there else "no tune-lora"
            _end(f"the cluster's {sys.executable} has {has}; must have tune-lora {version}, as where it was submitted")
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        _end(f"the cluster's {sys.executable} lacks {', '.join(missing)}; must have the packages of requirements.lock")


def _end(mistake: str) -> NoReturn:
    print(f"error: {mistake}", file=sys.stderr)  # noqa: T201  # the log of the job is all there is
    sys.exit(MISTAKE)


if __name__ == "__main__":
    main()
