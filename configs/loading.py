"""Loads a run from a recipe's name or a Python file."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.config import check_types
from jclip.configs import catalogue
from jclip.errors import JclipError
from jclip.outside import guarded, import_file
from jclip.train.checks import check_names
from jclip.train.configuration import Run


def load_config(name: str | Path, **choices: Any) -> Run:
    """Returns the run of a recipe, such as "chinese_clip/vit_b_16", or of a Python file with a function `config()`.

    `choices` are the arguments of `config()`. A file takes precedence over a recipe. The file's folder and the current
    one stay on `sys.path`, so that it can import its neighbours.

    Raises:
      JclipError: there is no such configuration, it has no function `config`, or the run is not valid.
    """
    return open_recipe(str(name)).build(**choices)


@dataclass(frozen=True)
class Recipe:
    """A configuration by its name, and its function `config`."""

    name: str
    config: Callable[..., Any]

    def build(self, **choices: Any) -> Run:
        """Returns the run for the arguments of `config`. Raises JclipError as `load_config` does."""
        run = guarded(self.name, lambda: self.config(**choices))
        if not isinstance(run, Run):
            raise JclipError(f"{self.name}: config() must return a jclip.train.Run, not a {type(run).__name__}")
        check_types(run)
        check_names(run)
        return run


def open_recipe(name: str) -> Recipe:
    """Imports a recipe or a Python file. Raises JclipError as `load_config` does."""
    path = Path(name)
    if path.is_file():
        module = guarded(name, lambda: import_file(path))
    elif name.endswith(".py"):
        raise JclipError(f"there is no configuration file {name}: `jclip configs` lists the recipes that need no file")
    else:
        catalogue.check_known(name)
        module = guarded(name, lambda: importlib.import_module(catalogue.module_of(name)))
    if not hasattr(module, "config"):
        raise JclipError(f"{name} has no function config(): define one that returns a jclip.train.Run")
    return Recipe(name, module.config)
