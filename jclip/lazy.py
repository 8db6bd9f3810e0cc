"""Public namespaces: packages whose names are imported on first use.

    # jclip/shapes/__init__.py
    if TYPE_CHECKING:
        from jclip.shapes.round import circle as circle

    __all__, __getattr__, __dir__ = lazy(__name__, {"circle": "jclip.shapes.round:circle"})

`jclip.shapes.circle` then imports `jclip.shapes.round`; `import jclip.shapes` does not. The imports under TYPE_CHECKING
are for type checkers and editors.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(
    package: str, names: Mapping[str, str], needs: Sequence[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__all__`, `__getattr__` and `__dir__` of a package.

    Args:
      package: its name.
      names: "module:attribute" for each public name.
      needs: optional dependencies of all names; a missing one is reported with its extra.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}: it has {', '.join(names)}")
        from jclip.extras import check_installed, reported_extras

        module, _, attribute = names[name].partition(":")
        with reported_extras():
            check_installed(needs)
            value = getattr(import_module(module), attribute)
        setattr(sys.modules[package], name, value)  # so that this function is called once
        return value

    return list(names), get, lambda: sorted({*vars(sys.modules[package]), *names})
