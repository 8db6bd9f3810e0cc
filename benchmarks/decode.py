"""Images a second of decoding and augmenting: jclip's pipeline beside a torch DataLoader with as many workers.

    python -m benchmarks.decode                              ten minutes, on a machine that does nothing else
    python -m benchmarks.decode --sides 1024 --workers 8

Both decode and change the same JPEGs with Pillow, in the ways of Chinese-CLIP's --use-augment, and on the same draw to
the same picture, to the bit (tests/data/test_host_augment.py). What they deliver is what each trains on:

- torch: the DataLoader's batches of normalised float32, by the transform that cn_clip builds. Its pictures lie in
  memory as bytes, where cn_clip's have to be read and decoded from base64; it reads no text.
- jclip: `Batches.iterate` over a data folder: it reads records, draws and tokenises captions besides, and gives uint8,
  which is normalised on the device, inside the step.

Each has a process of its own, whose workers stay. The two are measured in turns, and a ratio is that of a round. Exits
with 1 where a side's median ratio is below 1.2.
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
QUALITY = 98  # which makes files about as large as those of Flickr30k and COCO


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      sides: pixels of the photographs' longer sides: 224, at which Chinese-CLIP's authors stored theirs, Flickr30k's,
        and COCO's.
      workers: processes of each contender.
      size: pixels that the model takes.
      batch: pictures.
      batches: that are timed, in each round.
      rounds: of both contenders.
      pictures: different ones.
    """

    sides: tuple[int, ...] = (224, 500, 640)
    workers: int = 2
    size: int = 224
    batch: int = 64
    batches: int = 24
    rounds: int = 7
    pictures: int = 2048


def main(options: Options) -> int:
    """Measures, prints a table, and gives the exit code."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    print("| longer side | KiB each | torch, images/s | jclip, images/s | jclip of torch | lowest | highest |")
    print("|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    slow = [side for side in options.sides if _measured(options, side) < LEAST]
    for side in slow:
        print(f"{side} pixels: less than {LEAST} times torch's images a second", file=sys.stderr)
    return int(bool(slow))


def _measured(options: Options, side: int) -> float:
    """The median of the rounds' ratios, for photographs of one size; prints their row of the table."""
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        made = photographs(options.pictures, side)
        _write(Path(folder), made)
        ends = {}
        for name in CONTENDERS:
            ends[name], theirs = spawn.Pipe()
            spawn.Process(target=_serve, args=(theirs, name, options, Path(folder))).start()
            theirs.close()  # so that a contender that dies is noticed
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
    """So many different JPEGs: windows of scikit-learn's two photographs, a quarter of them standing."""
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
    """A DataLoader's batches, with the transform that cn_clip builds under --use-augment."""
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

    # fork, Python's and torch's default here: the workers have the pictures and the transform from the start.
    loader = DataLoader(Photographs(), options.batch, num_workers=options.workers, multiprocessing_context="fork")
    yield from loader


def from_jclip(options: Options, folder: Path) -> Iterator[Any]:
    """The batches of a stage of Chinese-CLIP's."""
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
    """A contender's process: each word that comes in is answered with images a second; the pipe's end is its end."""
    batches = CONTENDERS[name](options, folder)
    with contextlib.suppress(EOFError):
        while asked.recv():
            _take(batches, 4 * options.workers)  # what was made ahead, in the other's turn
            begin = time.perf_counter()
            _take(batches, options.batches)
            asked.send(options.batches * options.batch / (time.perf_counter() - begin))
    batches.close()  # type: ignore[attr-defined]  # generators, which end their workers
    time.sleep(1)  # in which a thread of grain's unlinks the last batches' memory


def _take(batches: Iterator[Any], number: int) -> None:
    for _ in islice(batches, number):
        pass


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
