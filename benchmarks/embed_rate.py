"""Images per second of `jclip embed`, beside the model alone. Exits with 1 if embedding has less than 0.85 of its rate.

    python -m benchmarks.embed_rate                  eight minutes, with random weights of Chinese-CLIP's ViT-B/16
    python -m benchmarks.embed_rate --side 4000

"embed" is `jclip.search.embed` from a folder of photographs to a finished index: walking, hashing, decoding and
resizing in worker processes, the model, and the database. "the model alone" is `Model.encode_image` on the same
photographs, decoded and resized before. They take turns in one process; a ratio compares the turns of a round.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

import jclip
import jclip.search
from benchmarks.decode import photographs
from benchmarks.serve_load import write_random
from jclip.inference import Model

LEAST = 0.85
_SIZE = (224, 224)


@dataclass(frozen=True)
class Options:
    """Settings of the measurement.

    Attributes:
      images: number of photographs.
      side: their longer side in pixels.
      batch_size: number of images that are encoded at once.
      workers: number of processes that decode; by default one for each core.
      rounds: number of turns of each.
    """

    images: int = 256
    side: int = 640
    batch_size: int = 32
    workers: int | None = None
    rounds: int = 5


def main() -> int:
    """Measures, prints a table, and returns the exit code."""
    options = tyro.cli(Options, description=__doc__)
    rates: dict[str, list[float]] = {"the model alone": [], "embed": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number, encoded in enumerate(photographs(options.images, options.side)):
            (photos / f"{number:05}.jpg").write_bytes(encoded)
        model = jclip.load(write_random(Path(folder)), tower="image", batch_size=options.batch_size)
        resized = [Image.open(file).convert("RGB").resize(_SIZE) for file in sorted(photos.iterdir())]
        for number in range(-1, options.rounds):  # the first turn compiles, and does not count
            for name in rates if number % 2 == 0 else reversed(rates):
                start = time.perf_counter()
                if name == "embed":
                    _embed(model, photos, Path(folder) / f"{number}.index", options)
                else:
                    model.encode_image(resized)
                rate = options.images / (time.perf_counter() - start)
                print(f"round {number}: {name} {rate:.1f}", file=sys.stderr)
                if number >= 0:
                    rates[name].append(rate)
    ratios = [ours / bare for ours, bare in zip(rates["embed"], rates["the model alone"], strict=True)]
    print("| images/s of | median | lowest | highest | of the model alone |\n|---|---:|---:|---:|---|")
    for name, each in rates.items():
        of = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if name == "embed" else "1.00"
        print(f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} | {max(each):.1f} | {of} |")
    return int(statistics.median(ratios) < LEAST)


def _embed(model: Model, photos: Path, index: Path, options: Options) -> None:
    report = jclip.search.embed(model, photos, index, workers=options.workers, batch_size=options.batch_size)
    assert report.entries == options.images, report


if __name__ == "__main__":
    sys.exit(main())
