"""Compiles lowered programs for devices that are not attached. Runs in a process of its own, see `compiler_process`."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from jclip.accelerators.targets import Place
from jclip.cache.results import keep_result, read_result
from jclip.errors import JclipError, first_line
from jclip.extras import installing

_FORMAT = 1  # of the results in the cache
_COMPILERS = ("jaxlib", "libtpu", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12", "nvidia-cudnn-cu12")
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MISSING_PART = re.compile(r"cudnn|ptxas|nvlink|libdevice|libtpu", re.IGNORECASE)  # which the extra installs
_TOO_LARGE = re.compile(r"Ran out of memory .*?(?:\(|Used )([\d.]+)([KMGT]?)\)? (?:exceeds|of)", re.DOTALL)


class CompilerFailed(JclipError):
    """Error for a compiler that crashes, refuses a program, or exceeds a limit of time or memory."""


@dataclass(frozen=True)
class Compiled:
    """Program that was compiled for the devices of a place. Bytes are those of one device.

    TPU compilers refuse a program that does not fit. Then only `needed`, `available` and `seconds` are known.

    Attributes:
      needed: bytes that the program needs: arguments, results that are not written into them, and temporaries.
      available: bytes that it may use.
      arguments: bytes of the arguments that it uses; 0 if it was refused.
      text: the optimised program, as HLO text; "" if it was refused.
      seconds: duration of the compilation.
    """

    needed: int
    available: int
    arguments: int
    text: str
    seconds: float

    @property
    def fits(self) -> bool:
        """True if the devices have enough memory."""
        return self.needed <= self.available


class Compiler:
    """Compiler of a place, in this process.

    Attributes:
      place: the devices for which it compiles.
      devices: compile-only devices, for a mesh.

    Args:
      say: receives a description of the current step.

    Raises CompilerFailed if the compiler cannot be loaded.
    """

    def __init__(self, place: Place, say: Callable[[str], object] = lambda words: None):
        self.place, self._say = place, say
        jax.devices("cpu")  # jax then initialises no other backend when the target's plugin is loaded
        try:
            self.devices: Sequence[jax.Device] = place.target.arrangement.compile_only(place.target.name, place.shape)
        except Exception as error:  # each platform has its own kinds
            raise CompilerFailed(
                f"{place.name}: the compiler cannot be loaded: {first_line(error)}: {self._install}"
            ) from None

    def compile(self, lowered: Any, words: str = "compiling") -> Compiled:
        """Compiles the result of `jax.jit(...).lower`, or returns the result that is kept from an earlier time.

        `words` describe the step while it is compiled.

        Raises CompilerFailed if the compiler refuses the program for another reason than its memory.
        """
        key = self._key(lowered.as_text())
        if (found := read_result(key)) is not None:
            return Compiled(**found)
        self._say(words)
        result = self._compile(lowered)
        keep_result(key, asdict(result))
        return result

    def _compile(self, lowered: Any) -> Compiled:
        begun, available = time.monotonic(), self.place.target.memory
        try:
            program = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if found := _TOO_LARGE.search(str(error)):
                needed = int(float(found[1]) * _UNITS[found[2]])
                return Compiled(needed, available, 0, "", time.monotonic() - begun)
            install = f": {self._install}" if _MISSING_PART.search(str(error)) else ""
            raise CompilerFailed(
                f"{self.place.name}: the compiler refuses the program: {first_line(error)}{install}"
            ) from None
        memory = program.memory_analysis()
        needed, arguments = self.place.target.arrangement.needed(memory), memory.argument_size_in_bytes
        return Compiled(needed, available, arguments, program.as_text(), time.monotonic() - begun)

    @property
    def _install(self) -> str:
        return installing(self.place.target.arrangement.modules[0])

    def _key(self, text: str) -> str:
        """Returns the digest of a program, its devices, and the compilers' versions and flags."""
        versions = [f"{name} {_version(name)}" for name in _COMPILERS]
        flags = [f"{name}={os.environ.get(name, '')}" for name in _FLAGS]
        facts = [f"{_FORMAT}", jax.__version__, repr(self.place), *versions, *flags, text]
        return hashlib.blake2b("\0".join(facts).encode(), digest_size=20).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
