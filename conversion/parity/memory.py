"""Returns free memory to the system, so that two towers' weights are not held at once."""

import ctypes
import ctypes.util
import gc
import sys


def release() -> None:
    """Collects garbage, and makes glibc return its free memory to the system."""
    gc.collect()
    if sys.platform.startswith("linux") and (name := ctypes.util.find_library("c")):
        trim = getattr(ctypes.CDLL(name), "malloc_trim", None)
        if trim is not None:
            trim(0)
