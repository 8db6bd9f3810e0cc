"""Load test of `jclip serve`: many clients, texts and images, batched and one at a time. Exits with 1 if it fails.

    python -m benchmarks.serve_load                  two minutes, with random weights of Chinese-CLIP's ViT-B/16
    python -m benchmarks.serve_load BUNDLE --seconds 10 --clients 16

The service runs in a process of its own, as users start it. Each client sends a request, waits for the answer, and
sends the next. Seven of eight are texts of 1 to 12 words, because people type more than they upload, and the eighth is
a JPEG of 100 to 500 pixels a side, of which some are damaged (--texts changes the mix). Every answer is compared with
the model's own encoding of the same input, and a request without an answer is lost.

Batches help texts, of which one alone leaves most of a processor idle. On a CPU they do not help images of ViT-B/16: a
single one occupies it. So the factor depends on the mix.

The same load runs twice: with batches as usual, and with --batch 1, which encodes one item at a time. It must hold:
nothing lost, nothing wrong; batches give at least 1.5 times the throughput, and a lower 95th percentile of the
latency; the memory of the service grows by at most 10 % between the first and the last third of the time.
"""

import argparse
import base64
import http.client
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

_IMAGES = 32
_DAMAGED = 16  # every sixteenth image is damaged
_WORDS = (
    "红色",
    "猫",
    "狗",
    "雪山",
    "海边",
    "日出",
    "a",
    "small",
    "red",
    "cat",
    "under",
    "the",
    "old",
    "tree",
    "house",
)
_TOLERANCE = 1e-5
_FACTOR, _GROWTH = 1.5, 1.1
_TIMEOUT = 120  # seconds for an answer
_LONGEST_START = 600  # seconds until every shape is warm


@dataclass
class Load:
    """Outcome of one run.

    Attributes:
      seconds: duration.
      latencies: of all answers, in seconds.
      lost: requests without an answer.
      wrong: answers that differ from the model's.
      memory: resident bytes of the service, sampled.
      cpu: CPU time of the service, in seconds. Other programs disturb it less than the rate.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Returns a percentile of the latencies, in seconds."""
        return float(np.percentile(self.latencies, share)) if self.latencies else float("nan")

    @property
    def growth(self) -> float:
        """Memory at the end relative to that at the start: medians of the last and the first third."""
        third = max(1, len(self.memory) // 3)
        return float(np.median(self.memory[-third:]) / np.median(self.memory[:third]))


def write_random(folder: Path) -> str:
    """Writes a bundle of the usual size with random weights, and returns its path."""
    import jax

    from jclip.bundle import Bundle, save_bundle
    from jclip.images.preprocess import Preprocessing
    from jclip.models import get_config
    from jclip.models.build import init_variables
    from jclip.tokenizers.text import wordpiece

    config = get_config("chinese-clip-vit-b-16")
    letters = sorted(set("".join(_WORDS)))
    tokenizer = wordpiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{each}" for each in letters)])
    params = jax.device_get(init_variables(config, jax.random.key(0)))["params"]
    save_bundle(Bundle(config, params, tokenizer, Preprocessing(), context_length=52), folder / "random")
    return str(folder / "random")


def inputs_of(bundle: str, texts: int = 7) -> list[tuple[str, np.ndarray | None]]:
    """Returns (input of a request, vector that the service must answer; None for a damaged image).

    `texts` texts come before each image.
    """
    from jclip.loading import load

    model, draw = load(bundle), np.random.default_rng(0)
    files = []
    for _ in range(_IMAGES):
        small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8))
        stream = io.BytesIO()
        small.resize(tuple(int(side) for side in draw.integers(100, 500, 2))).save(stream, "JPEG")
        files.append(stream.getvalue())
    found: list[tuple[str, np.ndarray | None]] = []
    # One at a time, so that the service's batches are compared with what a single call gives.
    for number, data in enumerate(files):
        for _ in range(texts):
            text = " ".join(draw.choice(_WORDS, draw.integers(1, 13)))
            found.append((text, model.encode_text([text])[0]))
        if number % _DAMAGED == _DAMAGED - 1:
            found.append((_uri(data[: len(data) // 2]), None))
        else:
            found.append((_uri(data), model.encode_image([data], orientation="apply")[0]))
    return found


def _uri(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def run(bundle: str, inputs: list[tuple[str, np.ndarray | None]], clients: int, seconds: float, batch: int) -> Load:
    """Starts a service, loads it, stops it, and returns the outcome."""
    command = [sys.executable, "-m", "jclip.cli", "serve", bundle, "--port", "0", "--batch", str(batch)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as service:
        try:
            assert service.stdout is not None
            line = service.stdout.readline()
            port = re.search(r":(\d+) serves", line)
            if port is None:
                raise SystemExit(f"the service did not start: {line}")
            _wait_until_warm(int(port[1]))
            load = _loaded(int(port[1]), service.pid, inputs, clients, seconds)
        finally:
            service.terminate()
    if service.returncode:
        load.lost.append(f"the service ended with code {service.returncode}")
    return load


def _wait_until_warm(port: int) -> None:
    end = time.monotonic() + _LONGEST_START
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        if status == 200:
            return
        time.sleep(0.2)
    raise SystemExit(f"the service is not warm after {_LONGEST_START} seconds")


def _loaded(port: int, process: int, inputs: list[tuple[str, np.ndarray | None]], clients: int, seconds: float) -> Load:
    load, lock, counter = Load(), threading.Lock(), itertools.count()
    end = time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT)
        while time.perf_counter() < end:
            text, wanted = inputs[next(counter) % len(inputs)]
            started = time.perf_counter()
            try:
                body = json.dumps({"input": text, "encoding_format": "base64"})
                connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                status, answer = response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                with lock:
                    load.lost.append(repr(error))
                connection.close()
                continue
            taken, fault = time.perf_counter() - started, _fault(status, answer, wanted)
            with lock:
                load.latencies.append(taken)
                if fault:
                    load.wrong.append(fault)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun, before = time.perf_counter(), _cpu(process)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.memory.append(_memory(process))
        time.sleep(min(0.25, seconds / 20))
    load.seconds, load.cpu = time.perf_counter() - begun, _cpu(process) - before
    return load


def _fault(status: int, answer: dict, wanted: np.ndarray | None) -> str:
    """Returns what is wrong with an answer; "" if nothing is."""
    if wanted is None:
        return "" if status == 422 and answer["error"]["code"] == "invalid_image" else f"damaged image: {status}"
    if status != 200:
        return f"status {status}: {answer}"
    found = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
    distance = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    return f"differs by {distance:.2g}" if not distance <= _TOLERANCE else ""


def _memory(process: int) -> int:
    """Returns the resident memory of a process, in bytes. Linux only."""
    pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _cpu(process: int) -> float:
    """Returns the CPU time of a process, in seconds. Linux only."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(batched: Load, single: Load) -> list[str]:
    """Prints the table, and returns what does not hold."""
    print(
        "| batches | answers | per second | median, ms | p95, ms | CPU, ms an answer | lost | wrong | "
        "memory at the end |\n|---|" + "---:|" * 8
    )
    for name, load in (("as usual", batched), ("of one", single)):
        times = f"{1000 * load.percentile(50):.0f} | {1000 * load.percentile(95):.0f}"
        cpu = 1000 * load.cpu / max(1, len(load.latencies))
        memory = f"{load.memory[-1] / 1e6:.0f} MB, x{load.growth:.2f}"
        bad = f"{len(load.lost)} | {len(load.wrong)}"
        print(f"| {name} | {len(load.latencies)} | {load.rate:.1f} | {times} | {cpu:.0f} | {bad} | {memory} |")
    factor = batched.rate / single.rate
    print(f"\nthroughput: x{factor:.2f}")
    faults = [
        f"{len(each)} {name}, the first: {each[0]}"
        for load in (batched, single)
        for name, each in (("lost", load.lost), ("wrong", load.wrong))
        if each
    ]
    if factor < _FACTOR:
        faults.append(f"throughput grows only x{factor:.2f}, not x{_FACTOR}")
    if batched.percentile(95) >= single.percentile(95):
        faults.append("the 95th percentile is not below that of single requests")
    faults += [f"memory grew x{load.growth:.2f}" for load in (batched, single) if load.growth > _GROWTH]
    return faults


def main() -> int:
    """Measures, prints a table, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="by default random weights")
    parser.add_argument("--seconds", type=float, default=60, help="duration of each of the two runs")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--texts", type=int, default=7, help="number of texts for each image")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle or write_random(Path(folder))
        inputs = inputs_of(bundle, given.texts)
        batched, single = (run(bundle, inputs, given.clients, given.seconds, batch) for batch in (given.batch, 1))
    faults = report(batched, single)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
