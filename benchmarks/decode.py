"""Images per second of decoding and augmenting: jclip's pipeline and a torch DataLoader with as many workers.

    python -m benchmarks.decode                              ten minutes, on an idle machine
    python -m benchmarks.decode --sides 1024 --workers 8

Both decode and augment the same JPEGs with Pillow, as Chinese-CLIP's --use-augment does. Equal random draws give equal
images, bit for bit (tests/images/test_on_host.py). Each delivers the batches that its trainer takes:

- torch: batches of normalised float32 from a DataLoader, with the transform that cn_clip builds. Its images are bytes
  in memory; cn_clip would also read them and decode base64. It reads no text.
- jclip: `Batches.iterate` over a data folder. It also reads records, and draws and tokenises captions. It delivers
  uint8, which the step normalises on the device.

Each runs in its own process, whose workers persist. The two take turns; a ratio compares the two turns of a round.
Exits with 1 if the median ratio for a side is below 1.2.
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tyro

LEAST = 1.2
QUALITY = 98  # gives files about as large as those of Flickr30k and COCO


@dataclass(frozen=True)
class Options:
    """Options of the benchmark.

    Attributes:
      sides: longer sides of the photographs in pixels; by default those of Chinese-CLIP's authors, Flickr30k and COCO.
      workers: number of worker processes of each contender.
      size: side of the model's input in pixels.
      batch: images in a batch.
      batches: number of timed batches in each round.
      rounds: number of rounds, in which both contenders take a turn.
      pictures: number of different images.
    """

    sides: tuple[int, ...] = (224, 500, 640)
    workers: int = 2
    size: int = 224
    batch: int = 64
    batches: int = 24
    rounds: int = 7
    pictures: int = 2048


def main(options: Options) -> int:
    """Measures, prints a table, and returns the exit code."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    print("| longer side | KiB each | torch, images/s | jclip, images/s | jclip of torch | lowest | highest |")
    print("|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    slow = [side for side in options.sides if _measured(options, side) < LEAST]
    for side in slow:
        print(f"{side} pixels: less than {LEAST} times torch's images a second", file=sys.stderr)
    return int(bool(slow))


def _measured(options: Options, side: int) -> float:
    """Prints the row of one side in the table, and returns the median ratio of its rounds."""
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        made = photographs(options.pictures, side)
        _write(Path(folder), made)
        ends = {}
        for name in CONTENDERS:
            ends[name], theirs = spawn.Pipe()
            spawn.Process(target=_serve, args=(theirs, name, options, Path(folder))).start()
            theirs.close()  # so that recv raises if the contender dies
        try:
            for number in range(options.rounds):
                for name in CONTENDERS if number % 2 == 0 else reversed(CONTENDERS):
                    ends[name].send("go")
                    figures[name].append(ends[name].recv())
                    print(f"{side} pixels, round {number + 1}: {name} {figures[name][-1]:.0f}", file=sys.stderr)
        finally:
            for end in ends.values():
                end.close()
            for process in multiprocessing.active_children():
                process.join()
    ratios = [ours / theirs for ours, theirs in zip(figures["jclip"], figures["torch"], strict=True)]
    speeds = " | ".join(f"{statistics.median(figures[name]):.0f}" for name in ("torch", "jclip"))
    spread = " | ".join(f"{ratio:.2f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios)))
    print(f"| {side} | {sum(map(len, made)) / len(made) / 1024:.0f} | {speeds} | {spread} |", flush=True)
    return statistics.median(ratios)


def photographs(number: int, side: int) -> list[bytes]:
    """Returns `number` different JPEGs: windows of scikit-learn's two photographs, a quarter of them upright."""
    import io

    import sklearn.datasets
    from PIL import Image

    folder, draw = Path(sklearn.datasets.__file__).parent / "images", np.random.default_rng(0)
    sources = [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
    made = []
    for index in range(number):
        shape = [4 / 3, 3 / 2, 3 / 4, 4 / 3][index % 4]
        source = sources[index % 8 // 4]
        high = min(source.height, source.width / shape) * draw.uniform(0.7, 1.0)
        wide = high * shape
        left, top = draw.uniform(0, source.width - wide), draw.uniform(0, source.height - high)
        target = (side, round(side / shape)) if shape > 1 else (round(side * shape), side)
        window = source.resize(target, Image.Resampling.BICUBIC, (left, top, left + wide, top + high))
        buffer = io.BytesIO()
        window.save(buffer, "JPEG", quality=QUALITY)
        made.append(buffer.getvalue())
    return made


def _write(folder: Path, pictures: list[bytes]) -> None:
    from jclip.data.sources.kinds import StoredPair
    from jclip.data.sources.synthetic import caption, write_tokenizer
    from jclip.data.sources.writing import write_pairs

    pairs = (StoredPair(picture, (caption(i), caption(i + 1))) for i, picture in enumerate(pictures))
    write_pairs(folder / "pairs", pairs)
    write_tokenizer("wordpiece", folder / "words")


def from_torch(options: Options, folder: Path) -> Iterator[Any]:
    """Yields the batches of a DataLoader with the transform that cn_clip builds under --use-augment."""
    from jclip.conversion.parity import peers

    peers.make_importable()
    import io

    from cn_clip.training.data import LMDBDataset
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    from jclip.data.sources.folders import PairFolder

    transform = LMDBDataset._build_transform(SimpleNamespace(split="train", use_augment=True), options.size)
    pictures = [pair.pictures[0] for pair in PairFolder(str(folder / "pairs")).open()]

    class Photographs(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 2**30

        def __getitem__(self, index: int) -> Any:
            return transform(Image.open(io.BytesIO(pictures[index % len(pictures)])))

    # fork, Python's and torch's default here: the workers have the images and the transform from the start.
    loader = DataLoader(Photographs(), options.batch, num_workers=options.workers, multiprocessing_context="fork")
    yield from loader


def from_jclip(options: Options, folder: Path) -> Iterator[Any]:
    """Yields the batches of a stage of Chinese-CLIP's recipe."""
    from jclip.configs.chinese_clip.recipe import AUGMENTATION, CONTEXT
    from jclip.data.batches.examples import PairExamples
    from jclip.data.batches.loader import Batches
    from jclip.data.batches.opened import open_sources
    from jclip.data.sources.folders import PairFolder
    from jclip.images.on_host import Decoder
    from jclip.images.preprocess import Preprocessing
    from jclip.tokenizers.padding import Texts
    from jclip.tokenizers.text import load_tokenizer

    preprocessing = Preprocessing(size=options.size)
    opened = open_sources([PairFolder(str(folder / "pairs"))], preprocessing)
    return Batches(
        opened,
        PairExamples(opened, Decoder(preprocessing, AUGMENTATION)),
        batch_size=options.batch,
        seed=0,
        stage=0,
        texts=Texts(load_tokenizer(folder / "words"), CONTEXT),
        workers=options.workers,
    ).iterate()


CONTENDERS: dict[str, Callable[[Options, Path], Iterator[Any]]] = {"torch": from_torch, "jclip": from_jclip}


def _serve(asked: Connection, name: str, options: Options, folder: Path) -> None:
    """Runs a contender's process: answers each message with images per second, until the pipe is closed."""
    batches = CONTENDERS[name](options, folder)
    with contextlib.suppress(EOFError):
        while asked.recv():
            _take(batches, 4 * options.workers)  # batches prefetched during the other's turn
            begin = time.perf_counter()
            _take(batches, options.batches)
            asked.send(options.batches * options.batch / (time.perf_counter() - begin))
    batches.close()  # type: ignore[attr-defined]  # a generator, which ends its workers
    time.sleep(1)  # a thread of grain unlinks the shared memory of the last batches


def _take(batches: Iterator[Any], number: int) -> None:
    for _ in islice(batches, number):
        pass


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
