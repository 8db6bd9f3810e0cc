"""Kinds of towers in the formats of PyTorch libraries: keys, sizes, configurations.

The attribute `conversion` of a tower's configuration names its format, which `format_of` returns. So no other module of
`jclip.conversion` depends on the class of a tower.
"""

from collections.abc import Mapping
from typing import Any

from jclip.conversion.towers.bert import BERT, XLM_R
from jclip.conversion.towers.clip_text import CLIP_TEXT
from jclip.conversion.towers.resnet import RESNET
from jclip.conversion.towers.tower import TowerFormat
from jclip.conversion.towers.vit import VIT
from jclip.errors import JclipError

__all__ = ["BERT", "CLIP_TEXT", "RESNET", "VIT", "XLM_R", "TowerFormat", "format_of"]

_FORMATS: Mapping[str, TowerFormat] = {"vit": VIT, "resnet": RESNET, "bert": BERT, "clip_text": CLIP_TEXT}


def format_of(tower: Any) -> TowerFormat:
    """Returns the format of a tower's configuration. Raises JclipError if no PyTorch library has such a tower."""
    if tower.conversion not in _FORMATS:
        raise JclipError(f"no PyTorch library has a {type(tower).__name__}: keep the bundle, which jclip reads")
    # XLM-R is a BERT whose position ids start after the padding id.
    after_padding = tower.conversion == "bert" and tower.position_offset == "after_padding"
    return XLM_R if after_padding else _FORMATS[tower.conversion]
