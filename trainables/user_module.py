"""A function of the user's own, found by ``module:function`` or ``path/to/module.py:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tune_lora.errors import InputError, nearest

FORM = "module:function, such as my_module:train"


def split(target: str) -> tuple[str, str]:
    """Module and function. Raises InputError where it is not of that form."""
    module, colon, function = target.rpartition(":")
    if not colon or not module or not function.isidentifier():
        raise InputError(f"trainable: got {target!r}; must be {FORM}")
    return module, function


def located(target: str, folder: Path) -> str:
    """The same with the module's file, absolute, where it lies in `folder`; as it is where it does not."""
    module, colon, function = target.rpartition(":")
    name = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
    path = folder / Path(name).expanduser()
    return f"{path.resolve()}:{function}" if colon and module and path.is_file() else target


def load(target: str) -> Callable[..., Any]:
    """The function.

    Raises:
        InputError: there is no such module or function, the module cannot be imported, or the function is not a
            generator function of two arguments.
    """
    module_name, name = split(target)
    module = _module(module_name)
    function = getattr(module, name, None)
    if function is None:
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise InputError(f"trainable: {module_name} has no {name!r}; {nearest(name, own) or 'it has no function'}")
    if not inspect.isgeneratorfunction(inspect.unwrap(function)):
        what = "returns once" if callable(function) else f"is a {type(function).__name__}"
        raise InputError(f"trainable: {target} {what}; must be a generator function: `yield` metrics after each epoch")
    _check_arguments(target, function)
    found: Callable[..., Any] = function
    return found


def _check_arguments(target: str, function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(object(), object())
    except TypeError:
        raise InputError(f"trainable: {target} takes {signature}; must take two arguments, (params, trial)") from None


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return _imported(name, lambda: importlib.import_module(name))
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(f"trainable: {name} does not exist; must be a Python file beside the study file, or a path")
    # A name of its own for each version of the file: a worker that outlives an edit takes the new one, and a file
    # called json.py hides nothing.
    key = hashlib.sha256(f"{path.resolve()}:{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    return _imported(name, lambda: _from_file(path, f"tune_lora_trainable_{key}"))


def _from_file(path: Path, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file has one,
    assert spec.loader is not None  # and a loader
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # what lies beside it can be imported by it
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _imported(name: str, make: Callable[[], ModuleType]) -> ModuleType:
    try:
        return make()
    except SyntaxError as error:
        place = f"{error.filename or name}:{error.lineno}"
        raise InputError(f"trainable: {place}: {error.msg}; must be Python that can be imported") from None
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise InputError(
                f"trainable: module {name!r} does not exist; must be a Python file beside the study file (of --set in "
                "the current folder), or importable"
            ) from None
        raise InputError(f"trainable: {name} needs the module {error.name!r}, which is not installed") from None
    except Exception as error:  # noqa: BLE001  # it is the user's program, and may fail in any way
        line = str(error).splitlines()[0] if str(error) else ""
        raise InputError(f"trainable: {name} cannot be imported ({type(error).__name__}: {line})") from None
