"""Shared by the stand-ins: a folder for their state, a list of calls, and processes that run together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

STATE = Path(os.environ["STANDIN_STATE"])
# Two devices for each process, so that a process owns several, as on a real machine.
DEVICES = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
}


def record(tool: str, **more: object) -> None:
    """Adds a line to the list of calls that the tests read."""
    with (STATE / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"tool": tool, "arguments": sys.argv[1:], **more}) + "\n")


def refuse(tool: str, message: str) -> None:
    """Ends as the real tool does for a wrong call."""
    sys.exit(f"{tool}: error: {message}")


def options(tool: str, arguments: Sequence[str], known: set[str]) -> tuple[dict[str, str], list[str]]:
    """Splits `--name=value --flag word ...` into the options and the rest, which begins at the first word."""
    found = {}
    for index, argument in enumerate(arguments):
        if not argument.startswith("--"):
            return found, list(arguments[index:])
        name, _, value = argument[2:].partition("=")
        if name not in known:
            refuse(tool, f"unrecognized option '--{name}'")
        found[name] = value
    return found, []


def preempted() -> bool:
    """Returns True once: when a preemption is ordered and the run's journal has its first step."""
    order = STATE / "preempt-at"
    if not order.exists():
        return False
    journal = Path(order.read_text(encoding="utf-8"))
    if not journal.exists() or '"train"' not in journal.read_text(encoding="utf-8"):
        return False
    order.unlink()
    return True


def run_together(
    commands: Sequence[Sequence[str]], environments: Sequence[dict[str, str]], **more: object
) -> list[int]:
    """Runs all commands at once, each with its additional environment; a preemption sends SIGTERM to all.

    Returns:
      exit codes as in a shell: 128 plus the number of a signal.
    """
    processes = [
        subprocess.Popen(command, env={**os.environ, **DEVICES, **environment}, **more)
        for command, environment in zip(commands, environments, strict=True)
    ]
    # Like srun: on SIGTERM it kills its tasks instead of passing the signal on.
    signal.signal(signal.SIGTERM, lambda *_: [process.kill() for process in processes])
    while any(process.poll() is None for process in processes):
        if preempted():
            for process in processes:
                process.terminate()
        time.sleep(0.05)
    return [code if (code := process.returncode) >= 0 else 128 - code for process in processes]
