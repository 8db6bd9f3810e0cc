"""Results of long computations, kept under a digest of everything that they depend on."""

import gzip
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from jclip.cache.bounds import limit
from jclip.cache.folder import cache_folder
from jclip.errors import JclipError
from jclip.io.files import whole_file

FOLDER = "planned"
LARGEST = 256 << 20
"""Maximum size in bytes of all results."""
MOST = 2_000
"""Maximum number of results."""


def read_result(key: str) -> Any:
    """Returns the JSON value that `keep_result` kept under a key, and marks it as used; None if there is none."""
    try:
        file = _file(key)
        found = json.loads(gzip.decompress(file.read_bytes()))
    except (JclipError, OSError, EOFError, zlib.error, ValueError):  # absent or damaged
        return None
    with suppress(OSError):
        os.utime(file)
    return found


def keep_result(key: str, value: Any) -> None:
    """Keeps a JSON value, and removes those that were used longest ago. Does nothing if the cache cannot be written.

    Args:
      key: hexadecimal digest of everything that the value depends on.
      value: the value; not None.
    """
    with suppress(JclipError, OSError):
        with whole_file(_file(key), replace=True) as partial:
            partial.write_bytes(gzip.compress(json.dumps(value).encode(), mtime=0))
        limit(cache_folder() / FOLDER, LARGEST, MOST)


def _file(key: str) -> Path:
    return cache_folder() / FOLDER / f"{key}.json.gz"
