"""Bilingual and multilingual CLIP in JAX.

    model = jclip.load("runs/demo/altclip/2-contrastive")

The public names come from their modules when they are first used, so that importing jclip costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jclip.bundle import Bundle
    from jclip.errors import JclipError
    from jclip.inference import Model, load, save
    from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig

__all__ = ["load", "save", "Model", "Bundle", "DualEncoder", "DualEncoderConfig", "JclipError"]

_HOMES = {
    "load": "jclip.inference",
    "save": "jclip.inference",
    "Model": "jclip.inference",
    "Bundle": "jclip.bundle",
    "DualEncoder": "jclip.models.dual_encoder",
    "DualEncoderConfig": "jclip.models.dual_encoder",
    "JclipError": "jclip.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jclip' has no attribute {name!r}: it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
