"""Returns free memory to the system, so that two towers' weights are not held at once."""

import ctypes
import ctypes.util
import gc
import sys

_WORTH_IT = 64 << 20


def release(freed: int = _WORTH_IT) -> None:
    """Collects garbage and makes glibc return free memory to the system; does nothing for fewer than 64 MiB `freed`."""
    if freed < _WORTH_IT:  # a collection takes half a second
        return
    gc.collect()
    if sys.platform.startswith("linux") and (name := ctypes.util.find_library("c")):
        trim = getattr(ctypes.CDLL(name), "malloc_trim", None)
        if trim is not None:
            trim(0)
