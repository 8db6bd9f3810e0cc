"""The command line: `jclip COMMAND`. Each command is a module that is imported when it is asked for."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from jclip.cli.logs import plain_logs
from jclip.errors import JclipError
from jclip.plain import all_written, complain, forget, output_errors, patient_streams, say

COMMANDS = {
    "demo": "real data, every stage of both recipes, a report: the quickstart",
    "train": "one run: all its stages; resumes by itself when started again",
    "finetune": "a bundle on your own pictures: chooses everything, says why, keeps the better",
    "plan": "stages, parameters, arithmetic and memory of a run, without training",
    "configs": "the recipes that come with jclip, by name",
    "convert": "PyTorch and safetensors weights to a bundle, and back",
    "verify": "holds a converted bundle against the weights it came from",
    "eval": "retrieval, classification and probes of a bundle, and two of them compared",
    "data": "imports data sets, and shows what they hold",
    "doctor": "devices, mesh, versions, disk: what would go wrong",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code, 0 only on success."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = " ".join(["jclip", *arguments[:1]]) if arguments[:1] and arguments[0] in COMMANDS else "jclip"
    with all_written(), patient_streams(), plain_logs(name):
        try:
            try:
                return _run(arguments)
            finally:  # after --help too, which exits
                if sys.stdout is not None:
                    with output_errors():
                        sys.stdout.flush()
        except JclipError as error:
            complain(f"{name}: {error}")
        except BrokenPipeError:  # `jclip plan … | head`: not an error of ours
            forget(sys.stdout)
            return 0
        except OSError as error:  # a folder that cannot be made, a file that may not be read, a full disk
            place = f"{error.filename}: " if error.filename else ""
            if error.filename == "standard output":
                forget(sys.stdout)
            complain(f"{name}: {place}{error.strerror or error}")
        except KeyboardInterrupt:
            complain("")  # after ^C
            complain(f"{name}: stopped")
            return 130
    return 1


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_usage())
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        from importlib.metadata import version

        say(f"jclip {version('jclip')}")
        return 0
    if command not in COMMANDS:
        complain(f"jclip has no command {command!r}: choose one of {', '.join(COMMANDS)}")
        return 2
    with _ctrl_c_counts():
        code: int = import_module(f"jclip.cli.{command}").main(rest)
    return code


@contextmanager
def _ctrl_c_counts() -> Iterator[None]:
    """Re-sends SIGINT if KeyboardInterrupt was swallowed inside a garbage-collection callback, as jax has one.

    It must not arrive before the hook has returned, which would swallow it too.
    """
    usual = sys.unraisablehook

    def hook(lost: Any) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.25, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            usual(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _usage() -> str:
    rows = "\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items())
    return f"jclip: AltCLIP and Chinese-CLIP in JAX\n\n{rows}\n\n`jclip COMMAND --help` explains each."
