"""`gcloud compute tpus`: nodes of two workers. A worker is a local folder, and its commands run locally.

The variables that a worker gets stand for the metadata server, by which jax finds the others on a real slice.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from shared import DEVICES, STATE, options, preempted, record, refuse

WORKERS = 2
KNOWN = {
    "zone", "project", "version", "accelerator-type", "scopes", "spot", "node-id", "runtime-version", "force", "quiet",
    "format", "worker", "command", "output-directory",
}  # fmt: skip
NODES = STATE / "nodes"


def state_of(node: Path) -> str:
    """Returns READY, PREEMPTED, or "" if there is no such node."""
    return (node / "state").read_text() if node.exists() else ""


def create(node: Path) -> None:
    """Creates two workers."""
    for worker in range(WORKERS):
        (node / str(worker)).mkdir(parents=True)
    (node / "state").write_text("READY")


def lose(node: Path) -> None:
    """Preempts a spot machine: SIGTERM, some time, and then everything on it is lost."""
    pids = [int(file.read_text()) for file in node.glob("*/.jclip-run/pid")]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)
    for worker in range(WORKERS):
        shutil.rmtree(node / str(worker))
    (node / "state").write_text("PREEMPTED")


def ssh(node: Path, command: str, folder: str) -> int:
    """Runs a command on all workers; returns the code of the first that failed, or 255 for a broken connection."""
    if state_of(node) != "READY":
        return 1
    port = random.randrange(20_000, 30_000)
    running = []
    for worker in range(WORKERS):
        home = node / str(worker)
        found = {
            "JCLIP_COORDINATOR": f"127.0.0.1:{port}",
            "JCLIP_PROCESSES": str(WORKERS),
            "JCLIP_PROCESS": str(worker),
        }
        log = (Path(folder) / f"{worker}.log").open("w") if folder else None
        running.append(
            subprocess.Popen(
                ["bash", "-c", command],
                cwd=home,
                env={**os.environ, **DEVICES, **found, "HOME": str(home)},
                stdout=log,
                stderr=log,
            )
        )
    while any(process.poll() is None for process in running):
        if preempted():
            lose(node)
            return 255
        time.sleep(0.05)
    return next((process.returncode for process in running if process.returncode), 0)


def main(group: str, verb: str, words: list[str], given: dict[str, str]) -> int:
    """Handles one call."""
    node = NODES / words[0].split(":")[0]
    request = STATE / f"request-{words[0]}"
    match group, verb:
        case "tpu-vm", "describe":
            if not node.exists():
                refuse("gcloud", f"NOT_FOUND: {node.name}")
            print(state_of(node))
        case "queued-resources", "describe":
            if not request.exists():
                refuse("gcloud", f"NOT_FOUND: {words[0]}")
            print(request.read_text())
            if request.read_text() == "WAITING_FOR_RESOURCES":
                create(node)
                request.write_text("ACTIVE")
        case "tpu-vm", "create":
            create(node)
        case "queued-resources", "create":
            request.write_text("WAITING_FOR_RESOURCES")
        case (("tpu-vm" | "queued-resources"), "delete"):
            shutil.rmtree(node)
            request.unlink(missing_ok=True)
        case "tpu-vm", "scp":
            source, target = words
            for worker in range(WORKERS):
                shutil.copy(source, NODES / target.split(":")[0] / str(worker) / target.split(":")[1])
        case "tpu-vm", "ssh":
            return ssh(node, given["command"], given.get("output-directory", ""))
        case _:
            refuse("gcloud", f"cannot do {group} {verb}")
    return 0


record("gcloud")
if sys.argv[1:3] != ["compute", "tpus"]:
    refuse("gcloud", f"cannot do {sys.argv[1:]}")
words = [argument for argument in sys.argv[5:] if not argument.startswith("--")]
given, _ = options("gcloud", [argument for argument in sys.argv[5:] if argument.startswith("--")], KNOWN)
sys.exit(main(sys.argv[3], sys.argv[4], words, given))
