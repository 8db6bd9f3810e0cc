"""The processes of a run: joined into one cluster, of one mind before they act, and only the first of them writing.

Whoever waits for a process that went its own way waits for ever. So a process that meets an error does not just raise
it: it tells the others at the next place where all meet, and all raise it. A process that dies outright is missed
within HEARTBEAT seconds, and then jax ends the others.

What is exchanged here goes through jax's coordination service, from host to host, so that no device is waited for.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import jax
from jax._src import distributed  # its client has no public name; orbax takes the same way

from jclip.errors import JclipError

T = TypeVar("T")

COORDINATOR, PROCESSES, PROCESS = "JCLIP_COORDINATOR", "JCLIP_PROCESSES", "JCLIP_PROCESS"
"""Environment variables that say where the first process listens (HOST:PORT), how many there are, and which this is."""

HEARTBEAT = 60
"""Seconds of silence after which a process counts as dead."""

_PATIENCE = 120  # seconds in which all processes must have come
_LONG = 7 * 24 * 3600 * 1000  # milliseconds: how long one may work while the others wait; the dead are noticed sooner


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
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        mend = (
            f"check {COORDINATOR}, and that all {arguments['num_processes']} were started"
            if said
            else f"start it under Slurm, on a TPU pod or on Kubernetes, or set {COORDINATOR}, {PROCESSES} and {PROCESS}"
        )
        raise JclipError(f"the processes of this run cannot be joined ({reason}): {mend}") from None


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def who() -> str:
    """This process, for messages: empty where it is alone."""
    return f"process {jax.process_index()}: " if jax.process_count() > 1 else ""


class Meeting:
    """A place, named, where all processes of a run meet again and again, in step."""

    _counts: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str):
        self._name = f"jclip/{name}"

    def __call__(self, word: str | None = None) -> list[str]:
        """Waits for all the others; returns what was said, by whoever had something to say, in order of processes.

        Args:
          word: what this process has to say.
        """
        if jax.process_count() == 1:
            return [] if word is None else [word]
        count = self._counts[self._name] = self._counts.get(self._name, 0) + 1
        client, place = _client(), f"{self._name}/{count}/"
        if word is not None:
            client.key_value_set(f"{place}{jax.process_index():06}", word or " ")
        client.wait_at_barrier(self._name, _LONG)
        said = sorted(client.key_value_dir_get(place))
        if said:
            # Not before all have read it.
            client.wait_at_barrier(f"{self._name}/read", _LONG)
            if is_first():
                with suppress(Exception):
                    client.key_value_delete(place)
        return [value for _, value in said]


_errors = Meeting("errors")


def together(act: Callable[[], T]) -> T:
    """Does the same on every process. If it fails anywhere, it fails everywhere, with the first process's error.

    For what every process does by itself: it must not wait for the others within `act`.

    Raises:
      JclipError: what `act` raised here or elsewhere. Any other exception is raised where it arose, and told elsewhere.
    """
    failure: Exception | None = None
    try:
        result = act()
    except Exception as error:
        failure = error
    told = _errors(None if failure is None else f"{who()}{failure or type(failure).__name__}")
    if failure is not None and (jax.process_count() == 1 or not isinstance(failure, JclipError)):
        raise failure
    if told:
        raise JclipError(_one_of(told))
    return result


def first(act: Callable[[], T]) -> T | None:
    """Does something on the first process alone, while the others wait; returns None to them.

    Raises:
      JclipError: it failed; on every process.
    """
    return together(lambda: act() if is_first() else None)


def agree(what: str, mine: str, differ: Callable[[str, str], str | None]) -> None:
    """Checks that all processes mean the same.

    Args:
      what: it is that they mean, for the message.
      mine: as text, here.
      differ: (the first process's text, mine) -> the difference in words, or None.

    Raises:
      JclipError: it differs somewhere; on every process.
    """
    if jax.process_count() == 1:
        return
    firsts = _said_by_first(what, mine)

    def check() -> None:
        if difference := differ(firsts, mine):
            raise JclipError(f"this has another {what} than the first process ({difference}): start all alike")

    together(check)


def _said_by_first(what: str, mine: str) -> str:
    client, key = _client(), f"jclip/agree/{what}"
    if is_first():
        client.key_value_set(key, mine, allow_overwrite=True)
    client.wait_at_barrier(key, _LONG)
    text: str = client.blocking_key_value_get(key, _LONG)
    client.wait_at_barrier(key, _LONG)
    return text


def _one_of(told: list[str]) -> str:
    """One error out of those of several processes, which are mostly the same."""
    bare = {line.partition(": ")[2] for line in told}
    if len(bare) == 1 and len(told) == jax.process_count():
        return bare.pop()
    return told[0]


def _by_hand(said: dict[str, str]) -> dict[str, Any]:
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in said]
    if missing:
        raise JclipError(f"{' and '.join(said)} is set, but not {' and '.join(missing)}: set all three, or none")
    try:
        count, index = int(said[PROCESSES]), int(said[PROCESS])
    except ValueError:
        raise JclipError(f"{PROCESSES}={said[PROCESSES]} and {PROCESS}={said[PROCESS]} must be whole numbers") from None
    host, colon, port = said[COORDINATOR].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise JclipError(f"{COORDINATOR}={said[COORDINATOR]} is no address: write HOST:PORT")
    if not 0 <= index < count:
        raise JclipError(f"{PROCESS}={index} is not one of {count} processes: count them from 0")
    return {
        "coordinator_address": said[COORDINATOR],
        "num_processes": count,
        "process_id": index,
        # What jax would find by itself, under Slurm say, has been overruled, its devices of a process included.
        "cluster_detection_method": "deactivate",
    }


def _client() -> Any:
    return distributed.global_state.client
