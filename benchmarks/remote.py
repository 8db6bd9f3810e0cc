"""Objects and calls in other processes, so that a failure, or memory that is not returned, stays there."""

import contextlib
import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.pool import RemoteTraceback
from typing import Any


class Failed(Exception):
    """Error for a call that raised, whose process ended, or that took too long. The message is one line."""


class Remote:
    """Object in a process of its own. Its methods are called by name.

    Args:
      make: function or class that returns the object.
      arguments, named: arguments of `make`.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, **named: Any):
        spawn = multiprocessing.get_context("spawn")
        self._end, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, make, arguments, named), daemon=True)
        self._process.start()
        theirs.close()  # so that recv raises if the process dies

    def call(self, method: str, *arguments: Any, timeout: float | None = None) -> Any:
        """Returns the result of a method. Raises Failed; after `timeout` seconds it also ends the process."""
        return self._ask(_call, (method, arguments), timeout)

    def timed(self, method: str, *arguments: Any, timeout: float | None = None) -> float:
        """Calls a method, and returns its seconds in the other process. Raises as `call` does."""
        seconds: float = self._ask(_timed, (method, arguments), timeout)
        return seconds

    def attributes(self, *names: str, timeout: float | None = None) -> dict[str, Any]:
        """Returns attributes by name. Raises as `call` does."""
        found: dict[str, Any] = self._ask(_attributes, (names,), timeout)
        return found

    def close(self) -> None:
        """Ends the process."""
        self._end.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float | None) -> Any:
        try:
            self._end.send((function, arguments))
            if timeout is not None and not self._end.poll(max(timeout, 0)):
                self._process.kill()
                raise Failed(f"ended after {timeout:.0f} s, when no time was left")
            result, error = self._end.recv()
        except (EOFError, OSError):
            self._process.join(10)
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from None
        if error is not None:
            message, trace = error
            raise Failed(message) from RemoteTraceback(trace)
        return result


def call_apart(function: Callable[..., object], *arguments: Any) -> None:
    """Calls a function in another process, so that this one stays small. Raises SystemExit if it fails."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


def _call(made: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(made, method)(*arguments)


def _timed(made: Any, method: str, arguments: tuple[Any, ...]) -> float:
    begun = time.perf_counter()
    getattr(made, method)(*arguments)
    return time.perf_counter() - begun


def _attributes(made: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(made, name) for name in names}


def _serve(asked: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Makes the object with the first question, and answers: (result, None), or (None, (message, traceback))."""
    made: list[Any] = []
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, given = asked.recv()
            try:
                if not made:
                    made.append(make(*arguments, **named))
                answer = function(made[0], *given), None
            except Exception as raised:  # any error of the libraries, with its name
                said = " ".join(str(raised).split())
                answer = None, (f"{type(raised).__name__}: {said[:300]}", traceback.format_exc())
            asked.send(answer)
