"""Real processes of one run: `python -m tests.train.cluster JOB.pickle`, with JCLIP_* in the environment."""

import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jclip.train.configuration import Run

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; normally it takes 20, but a machine may be busy


@dataclass(frozen=True)
class Job:
    """Arguments of `train` on every process.

    Attributes:
      run, workdir, stop_after: as in `train`.
      gallery: number of images to evaluate with; 0 for the run's own evaluations.
      own_memory: let the devices seem to have a memory of their own.
    """

    run: Run
    workdir: Path
    stop_after: int | None = None
    gallery: int = 0
    own_memory: bool = False


def start(job: Job, processes: int, devices: int) -> list[subprocess.Popen[str]]:
    """Starts the processes of a job, each with its own devices."""
    with tempfile.NamedTemporaryFile(suffix=".pickle", delete=False) as file:
        pickle.dump(job, file)
    return start_all([[sys.executable, "-m", "tests.train.cluster", file.name]] * processes, devices)


def start_all(commands: Sequence[Sequence[str]], devices: int) -> list[subprocess.Popen[str]]:
    """Starts the processes of one run, each with its own command and its own devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    common = {
        **os.environ,
        # The last of two equal flags counts.
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "JCLIP_COORDINATOR": address,
        "JCLIP_PROCESSES": str(len(commands)),
    }
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**common, "JCLIP_PROCESS": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, command in enumerate(commands)
    ]


def finish(running: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Returns the exit code and the output of each process; none may hang."""
    try:
        return [(each.wait(PATIENCE), each.stdout.read() if each.stdout else "") for each in running]
    finally:
        for each in running:
            each.kill()
            if each.stdout:
                each.stdout.close()


def run_all(job: Job, processes: int, devices: int) -> list[tuple[int, str]]:
    """Starts a job and returns the result of `finish`."""
    return finish(start(job, processes, devices))


def _main(file: str) -> int:
    from jclip.errors import JclipError
    from jclip.evaluators import evaluators as made
    from jclip.parallel.processes import connect
    from jclip.train import assembly
    from jclip.train.loop import train

    job: Job = pickle.loads(Path(file).read_bytes())
    connect()
    if job.own_memory:
        assembly.have_own_memory = lambda mesh: True
    run = job.run
    try:
        evaluators: dict[str, Any] = {"toy": _evaluator(run, job)} if job.gallery else made(run)
        outcome = train(run, job.workdir, evaluators=evaluators, stop_after=job.stop_after)
    except JclipError as error:
        print(f"JclipError: {error}")
        return 1
    print(f"outcome: {outcome.finished} {outcome.position.total} {outcome.signal}")
    return 0


def _evaluator(run: Run, job: Job) -> Any:
    """Returns an evaluator of recall on a gallery whose size is not a multiple of the number of devices."""
    import numpy as np

    from jclip.data.sources.synthetic import SyntheticPairs
    from jclip.encoding import Encoder
    from jclip.evaluate.metrics.recall import recall
    from jclip.tokenizers.text import load_tokenizer

    context = run.stages[0].context_length
    encoder = Encoder(run.model, load_tokenizer(Path(run.tokenizer)), run.preprocessing, context, batch_size=8)
    records = SyntheticPairs().open(run.preprocessing)
    pairs = [records[number] for number in range(job.gallery)]
    pictures: list[Any] = [pair.pictures[0] for pair in pairs]

    def evaluate(variables: dict[str, Any]) -> dict[str, float]:
        images = encoder.images(variables, pictures)
        texts = encoder.texts(variables, [pair.captions[0] for pair in pairs])
        keys = np.arange(len(pairs))
        return {**recall(images, texts, keys, keys), "sum": float(np.abs(images).sum())}

    return evaluate


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
