"""Process that loads an accelerator's compiler, and answers the requests of its parent until the parent ends.

Messages are pickled, both ways, over a socket that is the standard input. A request is the pickle of (place, function,
arguments); the function is called with a `Compiler` before its arguments. An answer is a pair of its kind and its
content.
"""

import os
import pickle
import queue
import signal
import threading
import traceback
from typing import BinaryIO, NoReturn

from jclip.accelerators.compiler import Compiler, CompilerFailed
from jclip.errors import JclipError

PROGRESS, RESULT, ERROR, FAILED, BUG = "progress", "result", "error", "failed", "bug"
"""Kinds of answers.

PROGRESS describes the current step; more answers follow. The last answer is the function's RESULT, the message of a
JclipError (ERROR) or CompilerFailed (FAILED), or the traceback of another exception (BUG).
"""


def serve() -> NoReturn:
    """Answers requests until the parent ends or closes this process's input."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(0), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # processes of the compiler do not inherit the socket
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    compiler = None

    def say(words: str) -> None:
        _send(answers, pickle.dumps((PROGRESS, words)))

    while True:
        request = waiting.get()
        try:
            place, function, arguments = pickle.loads(request)
            if compiler is None:
                compiler = Compiler(place, say)
            answer = pickle.dumps((RESULT, function(compiler, *arguments)), protocol=5)
        except CompilerFailed as error:
            answer = pickle.dumps((FAILED, str(error)))
        except JclipError as error:
            answer = pickle.dumps((ERROR, str(error)))
        except Exception:
            answer = pickle.dumps((BUG, traceback.format_exc()))
        _send(answers, answer)


def _listen(requests: BinaryIO, waiting: "queue.SimpleQueue[bytes]") -> None:
    """Reads requests. It has its own thread, so that the end of the parent is noticed while a program compiles."""
    try:
        while True:
            waiting.put(pickle.load(requests))
    except (EOFError, OSError, pickle.UnpicklingError):
        os.killpg(os.getpgrp(), signal.SIGKILL)  # the compiler's own processes too


def _send(stream: BinaryIO, message: bytes) -> None:
    stream.write(message)
    stream.flush()
