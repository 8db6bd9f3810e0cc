"""Public namespaces: packages whose names are imported on first use.

    # jclip/shapes/__init__.py
    if TYPE_CHECKING:
        from jclip.shapes.round import circle as circle

    __all__, __getattr__, __dir__ = lazy(__name__, __file__)

`jclip.shapes.circle` then imports `jclip.shapes.round`; `import jclip.shapes` does not. Type checkers and
editors read the same imports.
"""

import ast
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy(
    package: str, file: str, needs: Sequence[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
      package: its name.
      file: its `__init__.py`. The names are the imports in its `if TYPE_CHECKING:`.
      needs: optional dependencies without which none of them works; a missing one is reported with its extra.
    """
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    block = next(node.body for node in body if isinstance(node, ast.If))
    imports = [node for node in block if isinstance(node, ast.ImportFrom)]
    names = {alias.asname or alias.name: (node.module or "", alias.name) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}: it has {', '.join(names)}")
        from jclip.extras import check_installed, reported_extras

        with reported_extras():
            check_installed(needs)
            module, attribute = names[name]
            value = getattr(import_module(module), attribute)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return list(names), get, lambda: sorted({*vars(sys.modules[package]), *names})
