"""Memory that is free is given back, so that one tower's weights do not stand beside the next one's."""

import ctypes
import ctypes.util
import gc
import sys


def release() -> None:
    """Collects garbage and has the C library return what it holds in reserve, where it is one that can (glibc)."""
    gc.collect()
    if sys.platform.startswith("linux") and (name := ctypes.util.find_library("c")):
        trim = getattr(ctypes.CDLL(name), "malloc_trim", None)
        if trim is not None:
            trim(0)
