"""Environment variables of jax: the platforms that it looks for, and its share of a GPU's memory.

With the compilers of `jclip plan --on`, jax looks for their devices at every start. libtpu and the CUDA plugin then
write warnings and a traceback before jax falls back to the CPU.
"""

import os
import sys
from collections.abc import Iterable
from glob import glob
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules

SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""Names of the share of a GPU's memory that jax takes: today's, and the one before. With both, jax does not start."""
_OURS = ("xla_cuda12", "xla_cuda13")
# NVIDIA: a driver, a container's, and WSL's. TPU: v2 to v4, and later ones.
_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/accel*", "/dev/vfio/[0-9]*")


def skip_absent_accelerators(devices: Iterable[str] = _DEVICES) -> None:
    """Sets JAX_PLATFORMS to cpu if compilers for accelerators are installed, and certainly no accelerator is attached.

    Does nothing if the variable is set, jax is imported already, a plugin for other devices is installed, or a variable
    of a TPU's environment is set. `devices` are patterns of device files.
    """
    if os.environ.get("JAX_PLATFORMS") or "jax" in sys.modules:
        return
    plugins = _plugins()
    if not plugins and find_spec("libtpu") is None:
        return  # jax looks for nothing
    in_a_pod = any(name.startswith("TPU_") for name in os.environ)
    if plugins <= set(_OURS) and not in_a_pod and not any(glob(pattern) for pattern in devices):
        os.environ["JAX_PLATFORMS"] = "cpu"


def take_of_gpus(share: float) -> None:
    """Lets jax take a share of a GPU's memory, unless the user has set one. Call it before jax uses its devices."""
    if not any(os.environ.get(name) for name in SHARES):
        os.environ[SHARES[0]] = f"{share}"


def _plugins() -> set[str]:
    """Returns the names of jax's plugins, which are modules of `jax_plugins` or entry points."""
    package = find_spec("jax_plugins")
    places = (package.submodule_search_locations or ()) if package else ()
    return {module.name for module in iter_modules(places)} | {each.name for each in entry_points(group="jax_plugins")}
