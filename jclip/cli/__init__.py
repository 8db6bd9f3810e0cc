"""The command line: `jclip COMMAND`. The module of a command is imported when the command is run."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from jclip import __version__
from jclip.cache.programs import programs_kept
from jclip.cli.dispatch import dispatch
from jclip.cli.logs import plain_logs
from jclip.cli.platforms import skip_absent_accelerators
from jclip.errors import JclipError
from jclip.extras import reported_extras
from jclip.plain import all_written, complain, forget, output_errors, patient_streams, say

COMMANDS = {
    "demo": "trains both recipes on real data and writes a report: the quickstart",
    "train": "trains all stages of a run; the same command resumes it",
    "finetune": "fine-tunes a bundle on your own images, with settings chosen for you",
    "plan": "prints the stages, parameters, arithmetic and memory of a run, without training",
    "configs": "lists the recipes that come with jclip, by name",
    "convert": "converts PyTorch and safetensors weights to a bundle, and back",
    "verify": "checks a converted bundle against its source weights",
    "export": "writes a bundle for runtimes without jclip: ONNX and StableHLO",
    "eval": "evaluates a bundle by retrieval, classification and probes; compares two results",
    "data": "imports and inspects data sets",
    "embed": "embeds images and texts into an index, and updates it",
    "index": "describes an index, and builds an approximate one for large indexes",
    "search": "finds images of an index by text, by image, or as near duplicates",
    "classify": "classifies images by labels of your own",
    "serve": "starts an HTTP service that embeds, classifies and searches, with a page",
    "doctor": "checks devices, mesh, versions and disk space",
    "cache": "lists and clears converted models and compiled programs",
}
_USAGE = (
    "jclip: AltCLIP and Chinese-CLIP in JAX\n\n{}\n\n"
    "`jclip COMMAND --help` explains a command; `jclip --version` prints the version. Converted models and compiled "
    "programs\nare kept in ~/.cache/jclip, or $JCLIP_CACHE. JAX_ENABLE_COMPILATION_CACHE=0 keeps no compiled programs."
)


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
        except BrokenPipeError:  # `jclip plan … | head` is not an error
            forget(sys.stdout)
            return 0
        except OSError as error:  # no permission, a full disk
            place = f"{error.filename}: " if error.filename else ""
            if error.filename == "standard output":
                forget(sys.stdout)
            complain(f"{name}: {place}{error.strerror or error}")
        except KeyboardInterrupt:
            complain("")  # ends the line with ^C
            complain(f"{name}: stopped")
            return 130
    return 1


def _run(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--version"]:
        say(f"jclip {__version__}")
        return 0
    skip_absent_accelerators()
    with _resent_interrupts(), reported_extras(), _programs_kept(arguments):
        return dispatch("jclip", "jclip.cli.", COMMANDS, arguments, _USAGE)


def _programs_kept(arguments: Sequence[str]) -> AbstractContextManager[None]:
    """Returns the context of a command that computes: see `programs_kept`."""
    if not arguments or arguments[0] == "cache" or {"-h", "--help"} & set(arguments):
        return nullcontext()
    return programs_kept(lambda line: complain(f"jclip {arguments[0]}: {line}"))


@contextmanager
def _resent_interrupts() -> Iterator[None]:
    """Re-sends SIGINT if KeyboardInterrupt was swallowed inside a garbage-collection callback; jax has one.

    The signal is delayed until the hook has returned, because the hook would swallow it too.
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
