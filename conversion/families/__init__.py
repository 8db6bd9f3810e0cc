"""Kinds of checkpoint that can be converted, and their detection."""

import re
from collections.abc import Mapping
from typing import Any

from jclip.conversion.families.altclip import ALTCLIP
from jclip.conversion.families.bert import BERT, XLM_R
from jclip.conversion.families.chinese_clip import CHINESE_CLIP, CN_CLIP
from jclip.conversion.families.clip import CLIP
from jclip.conversion.families.family import Family
from jclip.conversion.families.openai import OPEN_CLIP, OPENAI_CLIP
from jclip.errors import JclipError

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (ALTCLIP, CHINESE_CLIP, CN_CLIP, CLIP, OPENAI_CLIP, OPEN_CLIP, XLM_R, BERT)
}
"""Families in the order in which they are tried. A family whose signature includes another's comes before it."""

TEXT_ENCODERS = (XLM_R, BERT)
"""Families of text encoders without an image tower."""


def family_named(name: str) -> Family:
    """Returns a family by name. Raises JclipError if there is no such family."""
    if name not in FAMILIES:
        raise JclipError(f"--family {name!r} is unknown: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def detect(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], *, openai: bool = False) -> Family | None:
    """Returns the family of a checkpoint by its keys, their shapes and its config.json; None if it is unknown.

    `openai` is True for a TorchScript archive, the format of OpenAI's files.
    """
    for family in FAMILIES.values():
        spelt = {respelt(key, family) for key in shapes}
        if not spelt.issuperset(family.signature):
            continue
        # Two pairs of families have the same keys.
        if family is XLM_R and not _is_xlm_r(shapes, config):
            continue
        if family is OPENAI_CLIP and not (openai or "input_resolution" in shapes):
            continue
        return family
    return None


def respelt(key: str, family: Family) -> str:
    """Returns a key in the spelling of the family's table."""
    for pattern, replacement in family.spellings:
        key = re.sub(rf"^{pattern}", replacement, key)
    return key


def _is_xlm_r(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> bool:
    if "model_type" in config:
        return str(config["model_type"]) in ("xlm-roberta", "xlm_roberta")
    # BERT has two token types. XLM-R has one, and two more positions than a power of two.
    tables = {key: shape for key, shape in shapes.items() if key.endswith("_embeddings.weight")}
    types = [shape[0] for key, shape in tables.items() if "token_type" in key and shape]
    positions = [shape[0] for key, shape in tables.items() if "position" in key and shape]
    return types == [1] and len(positions) == 1 and positions[0] % 2 == 0 and (positions[0] - 2) % 8 == 0
