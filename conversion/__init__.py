"""Converts checkpoints of PyTorch to bundles and back.

    from jclip.conversion import convert, verify

    convert("hf://BAAI/AltCLIP", Path("altclip"))       # a checkpoint to a bundle with a passport
    verify(Path("altclip"), ["hf://BAAI/AltCLIP"])      # the passport's checks again

`compose` builds the starting point of a recipe from two checkpoints, `export` writes a bundle for other libraries, and
`ConvertOptions` holds facts that a checkpoint does not tell. Names are imported when they are first used. Only the
comparison with the original model, and `export` for cn_clip, need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jclip.conversion.composing import compose
    from jclip.conversion.converting import convert
    from jclip.conversion.exporting import export
    from jclip.conversion.importing import ConvertOptions
    from jclip.conversion.verifying import verify

__all__ = ["ConvertOptions", "compose", "convert", "export", "verify"]

_MODULES = {
    "ConvertOptions": "importing",
    "compose": "composing",
    "convert": "converting",
    "export": "exporting",
    "verify": "verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'jclip.conversion' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(import_module(f"jclip.conversion.{_MODULES[name]}"), name)
