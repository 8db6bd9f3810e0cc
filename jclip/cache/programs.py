"""Compiled programs that are kept for the next start: XLA's persistent cache, as a folder of jclip's cache.

The folder is limited by removing the programs that were used longest ago, before and after each use. jax has a limit
of its own, `jax_compilation_cache_max_size`. It needs another package and a lock for every read, and after a process is
killed between the two files of a program it can remove nothing any more.
"""

import glob
import hashlib
import math
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jclip.cache.bounds import limit
from jclip.cache.folder import cache_folder
from jclip.errors import JclipError
from jclip.io.files import check_folder

FOLDER = "compiled"
LARGEST = 1 << 30
"""Maximum size in bytes of all programs."""
MOST = 10_000
"""Maximum number of programs."""

_LEAST_FREE = 256 << 20  # bytes of the disk, below which nothing is written
_OPTIONS = ("jax_compilation_cache_dir", "jax_enable_compilation_cache", "jax_compilation_cache_max_size")
_DIR, _LEAST_SECONDS = _OPTIONS[0], "jax_persistent_cache_min_compile_time_secs"
_begun: list[Path] = []
"""Folder of a `programs_kept` that has begun and not ended."""
_OF_A_KIND = ("flags", "Features", "model name", "CPU part")
_TROUBLE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']*)': (.*)", re.DOTALL)


@contextmanager
def programs_kept(complain: Callable[[str], None]) -> Iterator[None]:
    """Keeps programs that jax compiles in the block, and uses those that are kept.

    Does nothing if the user has set an option of jax's persistent cache, such as JAX_ENABLE_COMPILATION_CACHE=0. If the
    cache cannot be written or its disk is full, programs are used, but none is added.

    Args:
      complain: receives one line if a program cannot be written.
    """
    try:
        folder = cache_folder() / FOLDER
    except JclipError:
        folder = None
    if folder is None or _is_users():
        yield
        return
    place = folder / _processor()
    limit(folder, LARGEST, MOST)
    _begun.append(place)
    _set(_DIR, str(place))
    _set(_LEAST_SECONDS, 0.0 if _has_room(folder) else math.inf)
    try:
        with _one_line_of_trouble(place, complain):
            yield
    finally:
        keep_none()
        limit(folder, LARGEST, MOST)


def keep_none() -> None:
    """Ends the keeping of programs that `programs_kept` has begun, for a run of several processes.

    Only the first process of a run writes programs. If it then has those that the others must compile, it does not take
    part in their compilation, which some platforms divide between the processes.
    """
    while _begun:
        _begun.pop()
        _set(_DIR, None)
        os.environ.pop(_LEAST_SECONDS.upper(), None)


def _is_users() -> bool:
    jax = sys.modules.get("jax")
    own = jax is not None and getattr(jax.config, _DIR, None)
    return bool(own) or any(name.upper() in os.environ for name in (*_OPTIONS, _LEAST_SECONDS))


def _set(name: str, value: Any) -> None:
    """Sets an option of jax, which may be imported already, or later, or in a process that this one starts."""
    if value is None:
        os.environ.pop(name.upper(), None)
    else:
        os.environ[name.upper()] = str(value)
    jax = sys.modules.get("jax")
    if jax is not None:
        jax.config.update(name, value)


def _has_room(folder: Path) -> bool:
    """Returns True if files can be created in a folder, which may not exist, and its disk is not full."""
    try:
        check_folder(folder)
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        return shutil.disk_usage(existing).free >= _LEAST_FREE
    except (JclipError, OSError):
        return False


def _processor() -> str:
    """Returns a name of the kind of processor: XLA compiles for its instructions, and jax ignores them on CPUs."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        first = lines[: lines.index("")] if "" in lines else lines
        facts += [line for line in first if line.partition("\t")[0] in _OF_A_KIND]
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()


@contextmanager
def _one_line_of_trouble(place: Path, complain: Callable[[str], None]) -> Iterator[None]:
    """Replaces jax's warnings of programs that it cannot read or write, and removes these programs.

    A killed process can leave half a program, which jax cannot read and would never replace.
    """
    told = False

    def show(message: Warning | str, *more: Any, **named: Any) -> None:
        nonlocal told
        trouble = _TROUBLE.match(str(message))
        if trouble is None:
            usual(message, *more, **named)
            return
        what, program, reason = trouble.groups()
        for file in place.glob(f"{glob.escape(program)}-*"):
            with suppress(OSError):
                file.unlink()
        if what == "writing" and not told:
            told = True
            complain(f"{place} cannot keep compiled programs ({' '.join(reason.split())}): the next start is slower")

    usual, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = usual
