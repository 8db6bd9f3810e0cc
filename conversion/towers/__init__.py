"""Kinds of towers in the formats of PyTorch libraries: keys, sizes, configurations.

The attribute `conversion` of a tower's configuration names its format, which `format_of` returns. So no other module of
`jclip.conversion` depends on the class of a tower. Another package adds a format with `register_format`.
"""

from typing import Any

from jclip.conversion.towers.bert import BERT, XLM_R
from jclip.conversion.towers.clip_text import CLIP_TEXT
from jclip.conversion.towers.resnet import RESNET
from jclip.conversion.towers.tower import TowerFormat
from jclip.conversion.towers.vit import VIT
from jclip.errors import JclipError

_FORMATS = {"vit": VIT, "resnet": RESNET, "bert": BERT, "xlm_r": XLM_R, "clip_text": CLIP_TEXT}


def register_format(name: str, layout: TowerFormat) -> None:
    """Adds the format of the towers whose `conversion` is `name`. Raises JclipError if the name has another format."""
    if _FORMATS.setdefault(name, layout) is not layout:
        raise JclipError(f"a tower format named {name!r} is registered already: choose another name")


def format_of(tower: Any) -> TowerFormat:
    """Returns the format of a tower's configuration. Raises JclipError if no PyTorch library has such a tower."""
    if tower.conversion not in _FORMATS:
        raise JclipError(f"no PyTorch library has a {type(tower).__name__}: keep the bundle, which jclip reads")
    return _FORMATS[tower.conversion]
