"""Images a second of decoding and augmenting, beside a torch DataLoader with cn_clip's transforms and as many workers.

    python -m benchmarks.decode                      some minutes
    python -m benchmarks.decode --side 1024 --workers 8

Photographs are windows of scikit-learn's two, JPEGs in memory, of Flickr30K's size by default. All change them in the
same ways, to the bit (tests/data/test_host_augment.py). What is delivered is what each trains on: batches of float32,
normalised, from torch; of uint8 from jclip, which normalises inside the step ("normalised" adds that, on this CPU).
Each contender runs in a process of its own, with its workers warm, in turns. Exits with 1 where none of ours is 1.2
times as fast as torch.
"""

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import tyro

LEAST = 1.2
TORCH = "torch"
Contender = Literal["torch", "threads", "normalised", "processes"]


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      workers: of each contender.
      side: pixels of a photograph's longer side.
      size: pixels that the model takes.
      batch: pictures.
      batches: that are timed, after warming up.
      rounds: of every contender.
      pictures: different ones.
      blocks: so many blocks of memory Pillow keeps for the next picture, in ours alone; 0 is its default.
      contender: measure this one alone, and print a number; with `file`.
      file: of the pictures.
    """

    workers: int = 2
    side: int = 500
    size: int = 224
    batch: int = 64
    batches: int = 32
    rounds: int = 3
    pictures: int = 512
    blocks: int = 0
    contender: Contender | None = None
    file: str = ""


def main(options: Options) -> int:
    """Measures all, prints a table, and gives the exit code."""
    contenders = list(BATCHES)
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pictures.pickle"
        made = photographs(options.pictures, options.side)
        file.write_bytes(pickle.dumps(made))
        print(f"{len(made)} JPEGs of {sum(map(len, made)) / len(made) / 1024:.0f} KiB on average, {asdict(options)}")
        for number in range(options.rounds):
            for name in contenders if number % 2 == 0 else contenders[::-1]:
                figures[name].append(_apart(options, name, file))
                print(f"round {number + 1}: {name} {figures[name][-1]:.0f} images/s", file=sys.stderr, flush=True)
    median = {name: statistics.median(values) for name, values in figures.items()}
    print("| contender | images/s, median | lowest | highest | of torch |\n|---|---:|---:|---:|---:|")
    for name, values in figures.items():
        shown = f"{median[name]:.0f} | {min(values):.0f} | {max(values):.0f} | {median[name] / median[TORCH]:.2f}"
        print(f"| {name} | {shown} |")
    best = max(median[name] for name in contenders if name != TORCH) / median[TORCH]
    if best < LEAST:
        print(f"{best:.2f} times torch's images a second: less than {LEAST}", file=sys.stderr)
    return int(best < LEAST)


def photographs(number: int, side: int) -> list[bytes]:
    """So many different JPEGs, three quarters of them lying and the rest standing, of shapes that people photograph."""
    import io

    import sklearn.datasets
    from PIL import Image

    folder, draw = Path(sklearn.datasets.__file__).parent / "images", np.random.default_rng(0)
    sources = [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    made = []
    for index in range(number):
        shape = [4 / 3, 3 / 2, 3 / 4, 1.25][index % 4]
        source = sources[index % 8 // 4]
        high = min(source.height, source.width / shape) * draw.uniform(0.7, 1.0)
        wide = high * shape
        left, top = draw.uniform(0, source.width - wide), draw.uniform(0, source.height - high)
        target = (side, round(side / shape)) if shape > 1 else (round(side * shape), side)
        window = source.resize(target, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
        buffer = io.BytesIO()
        window.save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def from_torch(options: Options, pictures: Sequence[bytes]) -> Iterator[Any]:
    """A DataLoader's batches, with the transform that cn_clip builds under --use-augment."""
    from conversion import peers

    peers.make_importable()
    import io

    from cn_clip.training.data import LMDBDataset
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    transform = LMDBDataset._build_transform(SimpleNamespace(split="train", use_augment=True), options.size)

    class Photographs(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 2**30

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(io.BytesIO(pictures[index % len(pictures)])))

    # fork, Python's and torch's default here: the workers have the pictures and the transform from the start.
    return iter(DataLoader(Photographs(), options.batch, num_workers=options.workers, multiprocessing_context="fork"))


def in_threads(options: Options, pictures: Sequence[bytes]) -> Iterator[np.ndarray]:
    """jclip's batches from threads, made as torch's workers make theirs: a whole batch each, two ahead."""
    make, pool = _maker(options, pictures), ThreadPoolExecutor(options.workers)
    ahead = deque(pool.submit(make, number) for number in range(2 * options.workers))
    for number in count(2 * options.workers):
        batch = ahead.popleft().result()
        ahead.append(pool.submit(make, number))
        yield batch


def normalised(options: Options, pictures: Sequence[bytes]) -> Iterator[Any]:
    """The same, in float32."""
    import jax

    from jclip.data.images import Preprocessing, normalise

    how = jax.jit(lambda images_bhwc: normalise(Preprocessing(size=options.size), images_bhwc))
    for batch in in_threads(options, pictures):
        yield how(batch).block_until_ready()


def in_processes(options: Options, pictures: Sequence[bytes]) -> Iterator[np.ndarray]:
    """jclip's batches from grain's processes."""
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain asks absl for flags of its own, which no program of absl's has read here
    numbers = grain.MapDataset.range(2**30).map(_maker(options, pictures))
    read = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    processes = grain.multiprocessing.MultiprocessingOptions(options.workers, per_worker_buffer_size=2)
    return iter(numbers.to_iter_dataset(read).mp_prefetch(processes))


BATCHES: dict[str, Callable[[Options, Sequence[bytes]], Iterator[Any]]] = {
    TORCH: from_torch,
    "threads": in_threads,
    "normalised": normalised,
    "processes": in_processes,
}


class _Maker:
    """From a batch's number to the batch."""

    def __init__(self, decode: Any, options: Options, pictures: Sequence[bytes]):
        self._decode, self._options, self._pictures = decode, options, pictures

    def __call__(self, number: int) -> np.ndarray:
        keep_blocks(self._options.blocks)
        size, pictures = self._options.batch, self._pictures
        examples = range(number * size, (number + 1) * size)
        return np.stack([self._decode(pictures[example % len(pictures)], example) for example in examples])


def keep_blocks(number: int) -> None:
    """Has Pillow keep so many blocks of memory, so that the next picture's need not be asked of the system."""
    from PIL import Image

    Image.core.set_blocks_max(number)


def _maker(options: Options, pictures: Sequence[bytes]) -> _Maker:
    from configs.chinese_clip.recipe import AUGMENTATION
    from jclip.data.host_augment import Decoder
    from jclip.data.images import Preprocessing

    return _Maker(Decoder(Preprocessing(size=options.size), AUGMENTATION), options, pictures)


def measure(options: Options) -> float:
    """Images a second of one contender, in this process."""
    assert options.contender
    pictures = pickle.loads(Path(options.file).read_bytes())
    batches = BATCHES[options.contender](options, pictures)
    for _ in islice(batches, 4 * options.workers):  # they start, and what they had made ahead is used up
        pass
    begin = time.perf_counter()
    seen = sum(len(batch) for batch in islice(batches, options.batches))
    return seen / (time.perf_counter() - begin)


def _apart(options: Options, contender: str, file: Path) -> float:
    """`measure` in a process of its own."""
    given = {**asdict(options), "contender": contender, "file": str(file)}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.decode", *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    if chosen.contender is None:
        sys.exit(main(chosen))
    print(json.dumps(measure(chosen)))
