"""Kinds of checkpoint that can be converted, and their detection. Another package adds one with `register_family`."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from jclip.conversion.families.altclip import ALTCLIP
from jclip.conversion.families.bert import BERT, XLM_R
from jclip.conversion.families.chinese_clip import CHINESE_CLIP, CN_CLIP
from jclip.conversion.families.clip import CLIP
from jclip.conversion.families.family import Family, Shapes, Start
from jclip.conversion.families.openai import OPEN_CLIP, OPENAI_CLIP
from jclip.conversion.hf.config import HfModel
from jclip.conversion.towers import format_of
from jclip.errors import JclipError
from jclip.models.dual_encoder import DualEncoderConfig

FAMILIES = {
    family.name: family for family in (ALTCLIP, CHINESE_CLIP, CN_CLIP, CLIP, OPENAI_CLIP, OPEN_CLIP, XLM_R, BERT)
}
"""Families in the order in which they are tried. A family whose signature includes another's comes before it."""


def register_family(family: Family) -> None:
    """Adds a family, which is tried before the others. Raises JclipError if its name is taken."""
    if FAMILIES.get(family.name, family) is not family:
        raise JclipError(f"a family named {family.name!r} is registered already: choose another name")
    others = dict(FAMILIES)
    FAMILIES.clear()
    FAMILIES.update({family.name: family} | others)


def family_named(name: str) -> Family:
    """Returns a family by name. Raises JclipError if there is no such family."""
    if name not in FAMILIES:
        raise JclipError(f"--family {name!r} is unknown: choose one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def detect(shapes: Shapes, config: Mapping[str, Any], *, torchscript: bool = False) -> Family | None:
    """Returns the family of a checkpoint by its keys, their shapes and its config.json; None if it is unknown.

    `torchscript` is True for a TorchScript archive, the format of OpenAI's files.
    """
    for family in FAMILIES.values():
        if is_signed(shapes, family) and family.accepts(shapes, config, torchscript):
            return family
    return None


def is_signed(keys: Collection[str], family: Family) -> bool:
    """Returns True if a checkpoint with these keys has the family's signature."""
    return {respelt(key, family) for key in keys}.issuperset(family.signature)


def respelt(key: str, family: Family) -> str:
    """Returns a key in the spelling of the family's table."""
    for pattern, replacement in family.spellings:
        key = re.sub(rf"^{pattern}", replacement, key)
    return key


def hf_family(config: DualEncoderConfig) -> tuple[Family, HfModel]:
    """Returns the family with the towers of `config`, and its model in transformers. Raises JclipError without one."""
    image, text, head = format_of(config.image), format_of(config.text), config.head_width is not None
    for family in FAMILIES.values():
        if family.hf and image.hf and (family.hf.text, family.hf.head) == (config.text.conversion, head):
            return family, family.hf
    raise JclipError(f"transformers has no CLIP with {image.title} and {text.title}{' with a head' if head else ''}")


def family_starting_with(encoder: str) -> tuple[Family, Start]:
    """Returns the family whose recipe starts with a text encoder of this format. Raises JclipError without one."""
    for family in FAMILIES.values():
        if family.start and family.start.encoder == encoder:
            return family, family.start
    raise JclipError(f"--text: no recipe starts with a {encoder}: name a BERT, a RoBERTa-wwm or an XLM-R")
