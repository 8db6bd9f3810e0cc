"""The recipes that come with jclip, by name: "chinese_clip/vit_b_16" is configs/chinese_clip/vit_b_16.py."""

import ast
import difflib
import re
from functools import cache
from pathlib import Path

from jclip.errors import JclipError

_ROOT = Path(__file__).parent


@cache
def recipes() -> dict[str, Path]:
    """Returns {name: file} of the recipes: the modules under configs that define `config()`."""
    files = sorted(_ROOT.rglob("*.py"))
    found = [file for file in files if re.search(r"^def config\(", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return {file.relative_to(_ROOT).with_suffix("").as_posix(): file for file in found}


def module_of(name: str) -> str:
    """Returns the import name of a recipe.

    >>> module_of("chinese_clip/vit_b_16")
    'jclip.configs.chinese_clip.vit_b_16'
    """
    return f"jclip.configs.{name.replace('/', '.')}"


def title(file: Path) -> str:
    """Returns the first line of a configuration file's docstring."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def check_known(name: str) -> None:
    """Checks that a recipe of this name exists.

    Raises:
      JclipError: there is none; the message gives the nearest name.
    """
    if name in recipes():
        return
    close = difflib.get_close_matches(name, recipes(), n=1)
    if not close:  # the last part of a name, such as vit_b_16
        close = [known for known in recipes() if known.endswith(f"/{name}")][:1]
    hint = f"did you mean {close[0]}?" if close else "`jclip configs` lists the recipes; your own file ends in .py"
    raise JclipError(f"there is no file and no recipe {name}: {hint}")
