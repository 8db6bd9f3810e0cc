"""The processes of a run: joined into one cluster, of one mind before they act, and only the first of them writing.

Whoever waits for a process that went its own way waits for ever. So a process that meets an error does not just raise
it: it tells the others at the next meeting, whichever that is, and all raise it. There is one row of meetings, which
all processes walk along in step; hence an error that arises out of turn is heard at the very next. A process that
dies outright is missed at once, by its socket (`lifeline`), and one whose machine is cut off within HEARTBEAT seconds,
by jax; the others end.

What is exchanged here goes through jax's coordination service, from host to host, so that no device is waited for.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from jax._src import distributed  # its client has no public name; orbax takes the same way

from jclip.errors import JclipError
from jclip.parallel import lifeline
from jclip.plain import complain

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

COORDINATOR, PROCESSES, PROCESS = "JCLIP_COORDINATOR", "JCLIP_PROCESSES", "JCLIP_PROCESS"
"""Environment variables that say where the first process listens (HOST:PORT), how many there are, and which this is."""

HEARTBEAT = 60
"""Seconds of silence after which a process counts as dead."""

_PATIENCE = 120  # seconds in which all processes must have come
_LONG = 7 * 24 * 3600  # seconds in which one may work while the others wait; the dead are noticed sooner
_FAREWELL = 900  # seconds for the others to hear of an error: orbax waits for 600 for who could not write his share
_DISK = 60  # seconds in which a new file must be seen by all
_SHORT = 60  # the same, where they surely wait on the devices
_LIFELINE = "jclip/lifeline"  # where the first process tells its port
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def connect(distributed: bool = False) -> None:
    """Joins this process with the others of its run; before jax has looked at the devices.

    Args:
      distributed: find them as jax does: on Cloud TPU pods, Slurm, Kubernetes and Open MPI. The environment variables
        COORDINATOR, PROCESSES and PROCESS go before that. Without either this is a run of one process.

    Raises:
      JclipError: the variables make no sense, no cluster was found, or not all of its processes came.
    """
    said = {name: os.environ[name] for name in (COORDINATOR, PROCESSES, PROCESS) if os.environ.get(name)}
    if not said and not distributed:
        return
    arguments: dict[str, Any] = {}
    if said:
        arguments = _by_hand(said)
        if arguments["num_processes"] == 1:
            return
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=_PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=60,
        )
        jax.devices()  # which waits for all: now, while none has met anything that could keep it away
        lifeline.hold(
            index(),
            _coordinator(),
            lambda port: client().key_value_set(_LIFELINE, port),
            lambda: str(client().blocking_key_value_get(_LIFELINE, 1000 * _PATIENCE)),
        )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = (
            f"check {COORDINATOR}, and that all {arguments['num_processes']} were started"
            if said
            else f"start it under Slurm, on a TPU pod or on Kubernetes, or set {COORDINATOR}, {PROCESSES} and {PROCESS}"
        )
        raise JclipError(f"the processes of this run cannot be joined ({reason}): {mend}") from None


def _coordinator() -> str:
    """Returns the host of the first process."""
    return str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")


def alone() -> bool:
    """Whether this process is not joined with others."""
    return client() is None


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return index() == 0


def index() -> int:
    """Of this process; `jax.process_index` would wait, the first time, until all processes ask for their devices."""
    number: int = distributed.global_state.process_id
    return number


def who() -> str:
    """This process, for messages: empty where it is alone."""
    return "" if alone() else f"process {index()}: "


def meet(word: str | None = None) -> list[str]:
    """Waits for all the others; returns what was said, by whoever had something to say, in order of processes.

    Args:
      word: what this process has to say.

    Raises:
      JclipError: another process came with an error.
    """
    if alone():
        return [] if word is None else [word]
    heard = _meet(None if word is None else _WORD + word)
    if heard.errors:
        raise heard.error()
    return heard.words


def together(act: Callable[[], T]) -> T:
    """Does the same on every process. If it fails anywhere, it fails everywhere, with the first process's error.

    Processes may meet within `act` too, as long as all do.

    Raises:
      JclipError: what `act` raised here or elsewhere. Any other exception is raised where it arose, and told elsewhere.
    """
    failure: Exception | None = None
    try:
        result = act()
    except Exception as error:
        if alone() or _is_known(error) or _is_lost(error):
            raise
        failure = error
    if alone():
        return result
    heard = _meet(None if failure is None else _ERROR + _words(failure))
    if failure is not None and not isinstance(failure, JclipError):
        raise known_to_all(failure, in_step=heard.in_step)
    if heard.errors:
        raise heard.error() from failure
    return result


@contextmanager
def sharing_errors() -> Iterator[None]:
    """The whole work of a process in its run: an error that the others do not know yet is told to them on the way out.

    Where they do not come to hear it, for they wait on the devices for this one, the process ends at once with 1: then
    they notice that it is gone. Who ends well waits for the others, and hears what they met at the very end.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        well = isinstance(error, SystemExit) and not error.code
        if alone() or well or _is_known(error) or _is_lost(error):
            raise
        mine = _words(error)
        heard = _meet(_LEAVING + mine)
        others = [words for words in heard.errors if words != mine]
        if others and not isinstance(error, JclipError | SystemExit):  # such as to have waited in vain
            raise known_to_all(JclipError(others[0]), in_step=False) from error
        known_to_all(error, in_step=False)
        raise
    if not alone():
        meet()


def known_to_all(error: E, *, in_step: bool = True) -> E:
    """Marks an error that was told at a meeting, and which all processes therefore raise.

    Args:
      error: the error.
      in_step: whether all raise it out of the same meeting, so that they may still meet on the way out; not so where
        one of them is leaving already.
    """
    error.told_in_step = in_step  # type: ignore[attr-defined]
    return error


def is_shared(error: BaseException) -> bool:
    """Whether every process raises this error out of the same meeting, so that they may still act in step."""
    return alone() or bool(_mark(error))


def first(act: Callable[[], T]) -> T | None:
    """Does something on the first process alone, while the others wait; returns None to them.

    Raises:
      JclipError: it failed; on every process.
    """
    return together(lambda: act() if is_first() else None)


def said_by_first(mine: str) -> str:
    """What the first process says, on all of them; what the others would have said is dropped."""
    return meet(mine if is_first() else None)[0]


def appears(place: Path) -> bool:
    """Whether what another process has made can be seen here: on a network's disk that may take a while."""
    until = time.monotonic() + (0 if alone() else _DISK)
    while not place.exists():
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


def agree(what: str, mine: str, differ: Callable[[str, str], str | None]) -> None:
    """Checks that all processes mean the same.

    Args:
      what: it is that they mean, for the message.
      mine: as text, here.
      differ: (the first process's text, mine) -> the difference in words, or None.

    Raises:
      JclipError: it differs somewhere; on every process.
    """
    if alone():
        return
    firsts = said_by_first(mine)

    def check() -> None:
        if difference := differ(firsts, mine):
            raise JclipError(f"this has another {what} than the first process ({difference}): start all alike")

    together(check)


_WORD, _ERROR, _LEAVING = "w", "e", "x"  # what each thing said begins with; the last from one who will not meet again
_numbers = itertools.count()


class _Heard(NamedTuple):
    """What was said at a meeting, in order of processes; `in_step` unless one of them is leaving."""

    words: list[str]
    errors: list[str]
    in_step: bool

    def error(self) -> JclipError:
        """One for all that were told."""
        return known_to_all(JclipError(_one_of(self.errors)), in_step=self.in_step)


def _meet(said: str | None) -> _Heard:
    """The next meeting of all."""
    service, name = client(), f"jclip/{next(_numbers)}"
    failing = said is not None and said[0] != _WORD
    if said is not None:
        service.key_value_set(f"{name}/{index():06}", said)
    patience = (_SHORT if _OUT_OF_MEMORY in (said or "") else _FAREWELL) if failing else _LONG
    try:
        service.wait_at_barrier(name, 1000 * patience)
    except jax.errors.JaxRuntimeError:
        if failing and said is not None:
            complain(said[1:])
            os._exit(1)
        raise
    heard = [value for _, value in sorted(service.key_value_dir_get(f"{name}/"))]
    if heard:
        # Not before all have read it.
        service.wait_at_barrier(f"{name}/read", 1000 * _LONG)
        if is_first():
            with suppress(Exception):
                service.key_value_delete(f"{name}/")
    return _Heard(
        words=[each[1:] for each in heard if each[0] == _WORD],
        errors=[each[1:] for each in heard if each[0] != _WORD],
        in_step=all(each[0] != _LEAVING for each in heard),
    )


def _words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"{who()}ended with code {error.code}: see what it said"
    return f"{who()}{error or type(error).__name__}"


def _is_lost(error: BaseException) -> bool:
    """Whether another process, or a device, is gone: then there is nobody to tell."""
    return isinstance(error, jax.errors.JaxRuntimeError) and _OUT_OF_MEMORY not in str(error)


def _is_known(error: BaseException) -> bool:
    """Whether the other processes raise this too, or what it came from."""
    return _mark(error) is not None


def _mark(error: BaseException | None) -> bool | None:
    while error is not None:
        told: bool | None = getattr(error, "told_in_step", None)
        if told is not None:
            return told
        error = error.__cause__
    return None


def _one_of(told: list[str]) -> str:
    """One error out of those of several processes, which are mostly the same."""
    bare = {line.partition(": ")[2] for line in told}
    if len(bare) == 1 and len(told) == count():
        return bare.pop()
    return told[0]


def _by_hand(said: dict[str, str]) -> dict[str, Any]:
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in said]
    if missing:
        raise JclipError(f"{' and '.join(said)} is set, but not {' and '.join(missing)}: set all three, or none")
    try:
        processes, number = int(said[PROCESSES]), int(said[PROCESS])
    except ValueError:
        raise JclipError(f"{PROCESSES}={said[PROCESSES]} and {PROCESS}={said[PROCESS]} must be whole numbers") from None
    host, colon, port = said[COORDINATOR].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise JclipError(f"{COORDINATOR}={said[COORDINATOR]} is no address: write HOST:PORT")
    if not 0 <= number < processes:
        raise JclipError(f"{PROCESS}={number} is not one of {processes} processes: count them from 0")
    return {
        "coordinator_address": said[COORDINATOR],
        "num_processes": processes,
        "process_id": number,
        # What jax would find by itself, under Slurm say, has been overruled, its devices of a process included.
        "cluster_detection_method": "deactivate",
    }


def client() -> Any:
    """Returns jax's client of the coordination service; None where this process is alone."""
    return distributed.global_state.client


def count() -> int:
    """Returns the number of processes of this run."""
    number: int = distributed.global_state.num_processes
    return 1 if alone() else number
