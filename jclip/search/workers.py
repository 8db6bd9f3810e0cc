"""Decodes images in worker processes, ahead of the model and in order.

A worker is this module, run by another interpreter: `multiprocessing` would import the caller's program again, which
fails in a script without `if __name__ == "__main__"`. Messages are pickled, both ways, over the standard streams. A
worker ends with its parent.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.search.decoding import Decoder, Read, Trouble
from jclip.search.sources.items import Content

KILLED = "decoding the image ended its process"
SLOW = "decoding the image took too long"

_ALONE = 8
"""Number of images in a request: few messages, and little to repeat when a worker dies."""

_AHEAD = 2  # requests for each worker, at least
_HELD = 256 << 20  # bytes of encoded images that wait in memory
_SECONDS = 120.0
"""Time limit for the images of a request."""

Known = Callable[[bytes], bool]
"""Function of a content hash; True if the vector is known. Several threads call it."""


class _Died(Exception):
    """A worker ended, or was ended because it took too long."""

    def __init__(self, trouble: Trouble):
        self.trouble = trouble


class _Asked(Protocol):
    def ask(self, method: str, argument: Any) -> Any:
        """Calls a method of a `Decoder`."""

    def stop(self) -> None:
        """Ends a call that another thread is waiting for."""

    def close(self) -> None:
        """Frees its resources. No thread uses it any more."""


class _Here:
    """Decoder in this process."""

    def __init__(self, preprocessing: Preprocessing):
        self._decoder = Decoder(preprocessing)

    def ask(self, method: str, argument: Any) -> Any:
        return getattr(self._decoder, method)(argument)

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Process:
    """Decoder in a worker process, which is started again after it died."""

    def __init__(self, preprocessing: Preprocessing, seconds: float):
        self._preprocessing, self._seconds = preprocessing, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._slow = self._stopped = False

    def ask(self, method: str, argument: Any) -> Any:
        process = self._process or self._started()
        timer = threading.Timer(self._seconds, self._end_slow, (process,))
        timer.daemon = True
        timer.start()
        try:
            return _exchange(process, (method, argument))
        except _BROKEN:
            self._process = None
            code = _ended(process)
            if self._slow:
                self._slow = False
                raise _Died(Trouble(SLOW, f"more than {self._seconds:g} s")) from None
            lacking = ", perhaps for lack of memory" if code == -9 else ""
            raise _Died(Trouble(KILLED, f"exit code {code}{lacking}")) from None
        finally:
            timer.cancel()

    def stop(self) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        if self._process is not None:
            _ended(self._process)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._stopped:
            raise _Died(Trouble(KILLED, "the workers are stopped"))
        code = "import sys; sys.path[:] = sys.argv[1:]; from jclip.search.workers import serve; serve()"
        arguments = [sys.executable, "-c", code, *sys.path]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            if _exchange(process, self._preprocessing) != _READY:
                raise EOFError
        except _BROKEN:
            process.kill()
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()  # type: ignore[union-attr]
            _ended(process)
            raise JclipError(
                f"a worker process cannot be started ({said[-1] if said else 'it ended'}): use --workers 0"
            ) from None
        self._process = process
        if self._stopped:
            process.kill()
        return process

    def _end_slow(self, process: "subprocess.Popen[bytes]") -> None:
        self._slow = True
        process.kill()


_READY = "ready"  # first answer of a worker
_BROKEN = (EOFError, OSError, ValueError, pickle.UnpicklingError)


def _exchange(process: "subprocess.Popen[bytes]", message: Any) -> Any:
    assert process.stdin is not None and process.stdout is not None
    pickle.dump(message, process.stdin, protocol=5)
    process.stdin.flush()
    try:
        return pickle.load(process.stdout)
    except (AttributeError, ImportError, LookupError) as error:  # of what Python printed before `serve`
        raise pickle.UnpicklingError(str(error)) from None


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Kills a process, and returns its exit code."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError):  # a request that it did not read
            stream.close()  # type: ignore[union-attr]
    return process.wait()


class _Request(NamedTuple):
    contents: list[Content]
    held: int
    done: "Future[list[Read | Trouble]]"


class Workers:
    """Workers that decode images. A context manager, which ends them.

    Args:
      count: number of processes; 0 to decode in a thread of this process.
      preprocessing: the model's, with the orientation of the index.
      known: content that is known is read, but not decoded.
      ahead: minimum number of images that are decoded ahead.
      seconds: time limit for a few images.
    """

    def __init__(
        self, count: int, preprocessing: Preprocessing, known: Known, ahead: int = 0, seconds: float = _SECONDS
    ):
        self._known = known
        self._count = max(count, 1)
        self._ahead = max(-(-ahead // _ALONE), _AHEAD * self._count)
        self._all: list[_Asked] = [
            _Process(preprocessing, seconds) if count else _Here(preprocessing) for _ in range(self._count)
        ]
        self._idle: queue.LifoQueue[_Asked] = queue.LifoQueue()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="decoding")

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._all:
            worker.stop()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            worker.close()

    def decoded(self, contents: Iterable[Content]) -> Iterator[Read | Trouble]:
        """Yields each image in order: read, with pixels unless its content is known; or why it is skipped.

        An image that ends its worker is decoded again alone, in another one, and then skipped.
        """
        waiting: deque[_Request] = deque()
        for request in self._requests(contents):
            waiting.append(request)
            while len(waiting) > self._ahead or (len(waiting) > 1 and sum(each.held for each in waiting) > _HELD):
                yield from waiting.popleft().done.result()
        while waiting:
            yield from waiting.popleft().done.result()

    def _requests(self, contents: Iterable[Content]) -> Iterator[_Request]:
        some: list[Content] = []
        held = 0
        for content in contents:
            some.append(content)
            held += len(content) if isinstance(content, bytes) else 0
            if len(some) == _ALONE or held > _HELD // self._ahead:
                yield _Request(some, held, self._threads.submit(self._decode, some))
                some, held = [], 0
        if some:
            yield _Request(some, held, self._threads.submit(self._decode, some))

    def _decode(self, contents: list[Content]) -> list[Read | Trouble]:
        worker = self._idle.get()
        try:
            return self._ask(worker, contents)
        except _Died as death:
            if len(contents) == 1:
                return [death.trouble]
        finally:
            self._idle.put(worker)
        return [outcome for content in contents for outcome in self._decode([content])]

    def _ask(self, worker: _Asked, contents: list[Content]) -> list[Read | Trouble]:
        found: list[Read | Trouble] = worker.ask("read", contents)
        numbers = [n for n, each in enumerate(found) if isinstance(each, Read) and not self._known(each.hash)]
        for number, pixels in zip(numbers, worker.ask("decode", numbers) if numbers else (), strict=True):
            each = found[number]
            if isinstance(pixels, np.ndarray) and isinstance(each, Read):
                each.pixels = pixels
            else:
                found[number] = pixels
        return found


def serve() -> None:
    """Runs a worker until its parent ends or closes its input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C, which the parent handles
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):  # nothing that a library prints gets into the answers
        os.dup2(null, stream)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with suppress(*_BROKEN):
        decoder = Decoder(pickle.load(requests))
        _send(answers, _READY)
        os.dup2(null, 2)  # libraries print warnings, which nobody reads
        while True:
            method, argument = pickle.load(requests)
            _send(answers, getattr(decoder, method)(argument))
    os._exit(0)


def _send(stream: BinaryIO, message: Any) -> None:
    pickle.dump(message, stream, protocol=5)
    stream.flush()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
