"""Folder of the cache."""

import os
from pathlib import Path

from jclip.errors import JclipError

VARIABLE = "JCLIP_CACHE"
"""Environment variable that names the cache's folder."""


def cache_folder() -> Path:
    """Returns the folder of jclip's cache, which may not exist: $JCLIP_CACHE, $XDG_CACHE_HOME/jclip or ~/.cache/jclip.

    Raises JclipError if none is set and the user has no home folder, or $JCLIP_CACHE is in that of an unknown user.
    """
    if own := os.environ.get(VARIABLE):
        try:
            return Path(own).expanduser().absolute()
        except RuntimeError:
            raise JclipError(f"{VARIABLE} is {own}, but there is no such user: set it to another folder") from None
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the specification ignores relative ones
        return Path(shared) / "jclip"
    try:
        return Path.home() / ".cache" / "jclip"
    except RuntimeError:
        raise JclipError(f"there is no home folder for the cache: set {VARIABLE} to a folder") from None
