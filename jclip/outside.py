"""Code from outside jclip: Python files, and modules that register kinds.

Kinds are towers, objectives, sources, evaluations, databases of indexes and export formats.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from jclip.errors import JclipError

KINDS, GROUP = "JCLIP_KINDS", "jclip.kinds"
"""Environment variable and group of entry points that name modules which register kinds."""


def import_file(path: Path) -> ModuleType:
    """Imports a Python file. Its folder and the current one stay on `sys.path`, so that it can import its neighbours.

    Worker processes get its classes and functions by value, because they could not import it by name. Raises JclipError
    if it is not a Python file.
    """
    spec = importlib.util.spec_from_file_location(f"jclip_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise JclipError(f"{path} is not a Python file: its name must end in .py")
    _search(Path.cwd(), path.resolve().parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, tyro and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    with suppress(ImportError):  # without grain there are no workers
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return module


def import_kind(name: str) -> None:
    """Imports the modules that may register a kind of this name: its entry point, and those that JCLIP_KINDS names.

    Raises JclipError if one of them cannot be imported.
    """
    for entry in entry_points(group=GROUP, name=name):
        guarded(f"the entry point {name} of {GROUP}", entry.load)
    for module in filter(None, os.environ.get(KINDS, "").split(",")):
        _search(Path.cwd())
        load = partial(import_file, Path(module)) if module.endswith(".py") else partial(import_module, module)
        guarded(f"{KINDS}: {module}", load)


def _search(*folders: Path) -> None:
    """Puts folders at the front of `sys.path`, unless they are on it."""
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def guarded(name: str, work: Callable[[], Any]) -> Any:
    """Calls `work`, a user's code, with standard output sent to standard error.

    Raises JclipError, in one line that begins with `name`, if the code raises.
    """
    try:
        with redirect_stdout(sys.stderr):  # standard output is for the command's results
            return work()
    except (JclipError, KeyboardInterrupt):
        raise
    except SystemExit as stop:
        raise JclipError(f"{name} ends the program (SystemExit: {stop.code}): remove that call") from None
    except BaseException as error:
        words = " ".join(str(error).split())
        raise JclipError(f"{name} cannot be read: {type(error).__name__}{words and ': '}{words}") from error
