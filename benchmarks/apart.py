"""Objects that live in a process of their own, so that a failure, or memory that is not returned, stays there."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Failed(Exception):
    """A call raised, its process ended, or it took too long; the message is one line."""


class Apart:
    """An object that a new process makes. Its methods are called from here.

    Args:
      make: returns the object; a class, for example.
      arguments, named: arguments of `make`.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, **named: Any):
        spawn = multiprocessing.get_context("spawn")
        self._end, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, make, arguments, named), daemon=True)
        self._process.start()
        theirs.close()  # so that recv raises if the process dies

    def call(self, method: str, *arguments: Any, timeout: float) -> Any:
        """Returns the result of a method. Raises Failed; after `timeout` seconds it also ends the process."""
        return self._ask(_call, (method, arguments), timeout)

    def timed(self, method: str, *arguments: Any, timeout: float) -> float:
        """Calls a method, and returns its seconds in the other process."""
        seconds: float = self._ask(_timed, (method, arguments), timeout)
        return seconds

    def facts(self, *names: str, timeout: float) -> dict[str, Any]:
        """Returns attributes by name."""
        found: dict[str, Any] = self._ask(_facts, (names,), timeout)
        return found

    def close(self) -> None:
        """Ends the process."""
        self._end.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float) -> Any:
        try:
            self._end.send((function, arguments))
            if not self._end.poll(max(timeout, 0)):
                self._process.kill()
                raise Failed(f"ended after {timeout:.0f} s, when no time was left")
            done, result = self._end.recv()
        except (EOFError, OSError):
            self._process.join(10)
            raise Failed(f"its process ended with exit code {self._process.exitcode}") from None
        if not done:
            raise Failed(result)
        return result


def _call(made: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(made, method)(*arguments)


def _timed(made: Any, method: str, arguments: tuple[Any, ...]) -> float:
    begun = time.perf_counter()
    getattr(made, method)(*arguments)
    return time.perf_counter() - begun


def _facts(made: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(made, name) for name in names}


def _serve(asked: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Makes the object with the first question, and answers: (True, result), or (False, what was raised)."""
    made: list[Any] = []
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            function, given = asked.recv()
            try:
                if not made:
                    made.append(make(*arguments, **named))
                answer = True, function(made[0], *given)
            except Exception as raised:  # any error of the libraries, with its name
                said = " ".join(str(raised).split())
                answer = False, f"{type(raised).__name__}: {said[:300]}"
            asked.send(answer)
