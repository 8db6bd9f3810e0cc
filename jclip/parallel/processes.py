"""Multi-host coordination: broadcast, barrier, and errors that are raised on every process.

If one process raises while the others wait in a collective, they hang. So a process that fails sends its error to the
next exchange, and all processes raise it. All processes make the same exchanges in the same order.

`barrier` and `gather` exchange, `broadcast` copies from process 0, `on_first` runs a function on process 0 only,
`everywhere` runs it on all, and `same_everywhere` compares. Each of them raises the errors of other processes.

The death of a process is detected immediately by its socket (`lifeline`), or within HEARTBEAT seconds by jax if its
machine is cut off. Text is exchanged between hosts by jax's coordination service, without waiting for devices.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from jclip.cache.programs import keep_none
from jclip.errors import JclipError, first_line
from jclip.internals import coordination_client, process_count
from jclip.internals import process_index as process_index
from jclip.parallel import lifeline
from jclip.plain import complain

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

COORDINATOR, PROCESSES, PROCESS = "JCLIP_COORDINATOR", "JCLIP_PROCESSES", "JCLIP_PROCESS"
"""Environment variables: the address of process 0 (HOST:PORT), the number of processes, and this process's index."""

HEARTBEAT = 60
"""Seconds of silence after which a process counts as dead."""

_START_SECONDS = 120  # for all processes to connect
_WORK_SECONDS = 7 * 24 * 3600  # for one to work while the others wait; dead processes are noticed sooner
_ERROR_SECONDS = 900  # for the others to receive an error: orbax waits 600 for a process that could not write
_MEMORY_ERROR_SECONDS = 60  # the same if a device is out of memory, because then the others wait on the devices
_DISK_SECONDS = 60  # for a new file to become visible on a network disk
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def connect(distributed: bool = False) -> None:
    """Connects this process with the others of its run. Call it before jax initialises its devices.

    With `distributed`, jax finds them on Cloud TPU pods, Slurm, Kubernetes and Open MPI. The environment variables
    COORDINATOR, PROCESSES and PROCESS take precedence. Without either, the run has a single process. Raises JclipError
    if the variables are not valid, no cluster was found, or not all processes connected.
    """
    given = {name: os.environ[name] for name in (COORDINATOR, PROCESSES, PROCESS) if os.environ.get(name)}
    if not given and not distributed:
        return
    arguments: dict[str, Any] = {}
    if given:
        arguments = _from_environment(given)
        if arguments["num_processes"] == 1:
            return
    keep_none()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=60,
        )
        jax.devices()  # waits for all processes: now, before anything can fail on one of them
        lifeline.hold(_START_SECONDS)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
        advice = (
            f"check {COORDINATOR}, and that all {arguments['num_processes']} were started"
            if given
            else f"start it under Slurm, on a TPU pod or on Kubernetes, or set {COORDINATOR}, {PROCESSES} and {PROCESS}"
        )
        raise JclipError(f"the processes of this run cannot connect ({reason}): {advice}") from None


def is_single_process() -> bool:
    """Returns whether this run has no other processes."""
    return coordination_client() is None


def is_first_process() -> bool:
    """Returns whether this is process 0, which alone writes files and prints."""
    return process_index() == 0


def process_prefix() -> str:
    """Returns "process 3: " for messages; "" in a run of a single process."""
    return "" if is_single_process() else f"process {process_index()}: "


def barrier() -> None:
    """Waits for all processes. Raises JclipError if another process sent an error."""
    gather()


def gather(value: Any = None) -> list[Any]:
    """Returns all processes' JSON-ready values in order, except None. Raises JclipError if one sent an error."""
    if is_single_process():
        return [] if value is None else [json.loads(json.dumps(value))]
    received = _exchange(None if value is None else _VALUE + json.dumps(value))
    if received.errors:
        raise received.error()
    return [json.loads(text) for text in received.values]


def broadcast(value: T) -> T:
    """Returns process 0's value on every process. It must be JSON-ready; tuples become lists."""
    received: list[T] = gather([value] if is_first_process() else None)[0]
    return received[0]


def on_first(act: Callable[[], T]) -> T | None:
    """Runs `act` on process 0 while the others wait; returns its result on process 0 and None on the others.

    Raises JclipError on every process if `act` failed.
    """
    return everywhere(lambda: act() if is_first_process() else None)


def everywhere(act: Callable[[], T]) -> T:
    """Runs `act` on every process; if it fails on some, every process raises the error of the first of them.

    `act` may exchange too, if it does so on all processes. A process raises its own error if it is not a JclipError.
    """
    failure: Exception | None = None
    try:
        result = act()
    except Exception as error:
        if is_single_process() or _was_sent(error) or _is_lost(error):
            raise
        failure = error
    if is_single_process():
        return result
    received = _exchange(None if failure is None else _ERROR + _text(failure))
    if failure is not None and not isinstance(failure, JclipError):
        raise mark_sent(failure, in_step=received.in_step)
    if received.errors:
        raise received.error() from failure
    return result


def same_everywhere(what: str, value: Any, differ: Callable[[Any, Any], str | None]) -> None:
    """Checks that all processes have the same value. Raises JclipError on every process if they differ.

    Args:
      what: name of the value, for the message.
      value: this process's JSON-ready value.
      differ: (process 0's value, this process's value) -> a description of the difference, or None.
    """
    if is_single_process():
        return
    expected = broadcast(value)

    def check() -> None:
        if difference := differ(expected, json.loads(json.dumps(value))):
            raise JclipError(f"{what} differs from process 0's ({difference}): start all with the same one")

    everywhere(check)


@contextmanager
def sharing_errors() -> Iterator[None]:
    """Wraps a whole program, and sends an error that leaves the block to the other processes.

    If they cannot receive it, because they wait on the devices, this process exits immediately with code 1, which they
    detect. A process that succeeds waits for the others, and raises their last errors.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        succeeded = isinstance(error, SystemExit) and not error.code
        if is_single_process() or succeeded or _was_sent(error) or _is_lost(error):
            raise
        own = _text(error)
        received = _exchange(_LEAVING + own)
        others = [text for text in received.errors if text != own]
        if others and not isinstance(error, JclipError | SystemExit):  # such as a timeout that the others caused
            raise mark_sent(JclipError(others[0]), in_step=False) from error
        mark_sent(error, in_step=False)
        raise
    barrier()


def mark_sent(error: E, *, in_step: bool = True) -> E:
    """Marks an error that all processes raise because it was exchanged.

    With `in_step` all raise it from the same exchange, and may exchange again while they handle it. Without, one of
    them is leaving the program.
    """
    error.sent_in_step = in_step  # type: ignore[attr-defined]
    return error


def is_in_step(error: BaseException) -> bool:
    """Returns whether every process raises this error from the same exchange."""
    return is_single_process() or bool(_mark(error))


def wait_until_visible(path: Path) -> bool:
    """Waits until another process's file is visible on a network disk; returns False if it does not appear."""
    until = time.monotonic() + (0 if is_single_process() else _DISK_SECONDS)
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


_VALUE, _ERROR, _LEAVING = "v", "e", "x"  # first letter of a message; "x" is a process's last message
_numbers = itertools.count()


class _Received(NamedTuple):
    """Messages of one exchange, in order of processes. `in_step` is False if a process is leaving the program."""

    values: list[str]
    errors: list[str]
    in_step: bool

    def error(self) -> JclipError:
        """Returns one error for all that were sent."""
        return mark_sent(JclipError(_merged(self.errors)), in_step=self.in_step)


def _exchange(message: str | None) -> _Received:
    """Sends this process's message, waits for all processes, and returns their messages."""
    client, name = coordination_client(), f"jclip/{next(_numbers)}"
    failing = message is not None and message[0] != _VALUE
    if message is not None:
        client.key_value_set(f"{name}/{process_index():06}", message)
    seconds = _WORK_SECONDS
    if failing:
        seconds = _MEMORY_ERROR_SECONDS if _OUT_OF_MEMORY in (message or "") else _ERROR_SECONDS
    try:
        client.wait_at_barrier(name, 1000 * seconds)
    except jax.errors.JaxRuntimeError:
        if failing and message is not None:
            complain(message[1:])
            os._exit(1)
        raise
    received = [value for _, value in sorted(client.key_value_dir_get(f"{name}/"))]
    if received:
        # Deleted only after all have read them.
        client.wait_at_barrier(f"{name}/read", 1000 * _WORK_SECONDS)
        if is_first_process():
            with suppress(Exception):
                client.key_value_delete(f"{name}/")
    return _Received(
        values=[each[1:] for each in received if each[0] == _VALUE],
        errors=[each[1:] for each in received if each[0] != _VALUE],
        in_step=all(each[0] != _LEAVING for each in received),
    )


def _text(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"{process_prefix()}ended with code {error.code}: see its own message"
    return f"{process_prefix()}{error or type(error).__name__}"


def _is_lost(error: BaseException) -> bool:
    """Returns whether another process or a device is lost, so that no exchange is possible."""
    return isinstance(error, jax.errors.JaxRuntimeError) and _OUT_OF_MEMORY not in str(error)


def _was_sent(error: BaseException) -> bool:
    """Returns whether the other processes raise this error, or its cause, too."""
    return _mark(error) is not None


def _mark(error: BaseException | None) -> bool | None:
    while error is not None:
        in_step: bool | None = getattr(error, "sent_in_step", None)
        if in_step is not None:
            return in_step
        error = error.__cause__
    return None


def _merged(errors: list[str]) -> str:
    """Returns the first error, without the process's prefix if all processes sent the same."""
    bare = {line.partition(": ")[2] for line in errors}
    if len(bare) == 1 and len(errors) == process_count():
        return bare.pop()
    return errors[0]


def _from_environment(given: dict[str, str]) -> dict[str, Any]:
    """Returns the arguments of `jax.distributed.initialize` that the environment variables give."""
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in given]
    if missing:
        raise JclipError(f"{' and '.join(given)} is set, but not {' and '.join(missing)}: set all three, or none")
    try:
        processes, number = int(given[PROCESSES]), int(given[PROCESS])
    except ValueError:
        raise JclipError(
            f"{PROCESSES}={given[PROCESSES]} and {PROCESS}={given[PROCESS]} must be whole numbers"
        ) from None
    host, colon, port = given[COORDINATOR].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise JclipError(f"{COORDINATOR}={given[COORDINATOR]} is not a valid address: use HOST:PORT")
    if not 0 <= number < processes:
        raise JclipError(f"{PROCESS}={number} is not one of {processes} processes: count them from 0")
    return {
        "coordinator_address": given[COORDINATOR],
        "num_processes": processes,
        "process_id": number,
        # The variables overrule what jax would detect, under Slurm for example, including its devices per process.
        "cluster_detection_method": "deactivate",
    }
