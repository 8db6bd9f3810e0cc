"""Runs an accelerator's compiler in another process, which prints nothing, has limits, and leaves nothing running.

    with CompilerProcess(parse_place("v5e:2x2")) as process:
        result = process.call(function, 1, 2)  # function(compiler, 1, 2), in that process

The compilers print much, install signal handlers, abort on some programs, and cannot be loaded into a process that uses
attached devices.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Self

from jclip.accelerators.compiler import CompilerFailed
from jclip.accelerators.limited_process import Died, LimitedProcess
from jclip.accelerators.targets import Place
from jclip.accelerators.worker import BUG, ERROR, FAILED, PROGRESS
from jclip.errors import JclipError, first_line
from jclip.extras import check_installed, reported_extras

SECONDS = 1800.0
"""Default time limit of a compilation, seconds."""

_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from jclip.accelerators.worker import serve; serve()"


class CompilerProcess:
    """Process with the compiler of a place. A context manager, which ends it and everything that it has started.

    It starts with the first call. After it died, the next call starts another one.

    Args:
      place: devices for which it compiles.
      seconds: time limit of the first answer to a call, and of each later one. Its process reports every compilation
        before it begins, so this is the time limit of one compilation.
      more_time: advice for the user in the error after that time, such as an option that allows more.
      memory: limit of its memory in bytes; by default most of the memory that is free when it starts.
      progress: receives a description of the current step.
      command: command of the process; by default `worker.serve`.

    Raises:
      MissingExtra: the compiler is not installed.
    """

    def __init__(
        self,
        place: Place,
        *,
        seconds: float = SECONDS,
        more_time: str = "",
        memory: int | None = None,
        progress: Callable[[str], object] = lambda words: None,
        command: Sequence[str] = (),
    ):
        check_installed(place.target.arrangement.modules)
        self.place, self._seconds, self._memory, self._progress = place, seconds, memory, progress
        self._more_time = more_time
        self._command = command or (sys.executable, "-c", _SERVE, *sys.path)
        self._process: LimitedProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process. Another call starts another one."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in the process, with its `Compiler` before the arguments, and returns the result.

        cloudpickle sends the function and its arguments, so classes of a configuration file are possible.

        Raises:
          CompilerFailed: the compiler crashed, refused the program, or exceeded a limit.
          JclipError: the function raised it, or the arguments cannot be sent.
        """
        with reported_extras():
            import cloudpickle
        try:
            request = cloudpickle.dumps((self.place, function, arguments))
        except Exception as error:  # each object that cannot be pickled has its own kind
            raise JclipError(f"the run cannot be sent to the compiler's process: {first_line(error)}") from None
        try:
            if self._process is None:
                self._process = LimitedProcess(self._command, self._environment(), self._memory)
            kind, content = self._ask(self._process, request)
        except Died as death:
            self.close()
            raise CompilerFailed(f"{self.place.name}: the compiler's process failed: {death}") from None
        except BaseException:  # a late answer must not become that of the next call
            self.close()
            raise
        if kind == BUG:
            raise RuntimeError(f"in the process of the compiler for {self.place.name}:\n{content}")
        if kind in (ERROR, FAILED):
            raise (CompilerFailed if kind == FAILED else JclipError)(content)
        return content

    def _ask(self, process: LimitedProcess, request: bytes) -> tuple[str, Any]:
        """Returns the last answer to a request, and describes the steps before it."""
        with process.within(self._seconds, self._more_time):
            process.send(request)
            kind, content = process.receive()
        while kind == PROGRESS:
            self._progress(content)
            with process.within(self._seconds, self._more_time):
                kind, content = process.receive()
        return kind, content

    def _environment(self) -> dict[str, str]:
        flags = " ".join(filter(None, (os.environ.get("XLA_FLAGS"), *self.place.target.arrangement.flags)))
        return {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "0",  # `Compiler` keeps results
            "TPU_SKIP_MDS_QUERY": "1",  # otherwise libtpu asks the cloud for the machine's TPU
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it compiles beside a process that uses the machine's TPU
            "XLA_FLAGS": flags,
        }
