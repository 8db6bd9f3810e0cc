"""Checks names that become folder names, and suggests known names for an unknown one."""

import difflib
from collections.abc import Collection
from typing import Literal

from jclip.errors import JclipError

TowerName = Literal["image", "text"]
"""Name of a tower, which begins the paths of its parameters."""

ModelDtype = Literal["float32", "bfloat16"]
"""Dtype of a loaded model's towers."""

TokenizerKind = Literal["wordpiece", "bert", "xlmr", "clip_bpe"]
"""Kinds of tokenizer, see `jclip.tokenizers.text`. A text tower names its own."""

LONGEST = 150
"""Maximum length in bytes of UTF-8: file systems allow 255, and temporary files have longer names."""


def check_name(what: str, name: str) -> None:
    """Checks that the name in field `what` is a valid folder name on any system.

    >>> check_name("name", "ViT-B-16 中文[2]")
    >>> check_name("name", "../../x")
    Traceback (most recent call last):
    jclip.errors.JclipError: name is '../../x', which has a '/': give 1 to 150 bytes of printable characters, without \
/ and \\, that begin with neither a dot nor a space and do not end with a space

    Raises:
      JclipError: it is not valid.
    """
    if reason := _trouble(name):
        raise JclipError(
            f"{what} is {name[:60]!r}, which {reason}: give 1 to {LONGEST} bytes of printable characters, without "
            "/ and \\, that begin with neither a dot nor a space and do not end with a space"
        )


def _trouble(name: str) -> str:
    if not name:
        return "is empty"
    for separator in "/\\":
        if separator in name:
            return f"has a {separator!r}"
    if not name.isprintable():
        return "has characters that cannot be printed"
    if name.startswith(".") or name != name.strip():
        return "begins with a dot" if name.startswith(".") else "begins or ends with a space"
    size = len(name.encode())
    return f"has {size} bytes" if size > LONGEST else ""


def suggestion(name: str, known: Collection[str]) -> str:
    """Returns the known names that are most like an unknown one, or else all of them.

    >>> suggestion("flickr30", ["flickr30k", "xtd"]), suggestion("coco", ["flickr30k", "xtd"])
    ('did you mean flickr30k?', 'choose one of flickr30k, xtd')
    """
    close = difflib.get_close_matches(name.lower(), known, n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(known)}"
