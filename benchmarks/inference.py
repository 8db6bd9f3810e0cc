"""Speed of inference on CPUs: jclip and its exports beside transformers, cn_clip and jimm, with the same weights.

    python -m benchmarks.inference                     about 8 GB of disk, some minutes
    python -m benchmarks.inference --models clip-vit-b-16 --batches 1 --rounds 3

Each contender runs in its own process with the same number of threads. First every contender computes every batch, and
its features are compared with jclip's in float32; one that differs by more than its tolerance ends the program. Then
they take turns, so that a busy machine disturbs all of them. A ratio is the time of the fastest other library over a
contender's time in the same round; the table has the median and the extremes. Exits with 1 if the best of ours is less
than 1.5 times as fast as the best of theirs in float32, or less than 3 times with int8, for any batch.

Weights are random: the arithmetic is the same as with published ones. Contenders that are not installed are left out.
jimm needs another version of typeguard than tyro, so it is installed into a folder of its own:

    pip install --no-deps --target FOLDER jax-image-models tokamax jaxtyping einshape qwix wadler-lindig "typeguard<3"
    python -m benchmarks.inference --jimm FOLDER
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks.captions import CHINESE, ENGLISH
from benchmarks.contenders import CONTENDERS, Batch, Contender, write_models
from benchmarks.decode import photographs
from benchmarks.remote import Remote, call_apart
from benchmarks.turns import Seconds, open_programs, ratio, take_turns

AIMS = {"float32": 1.5, "int8": 3.0}
"""Minimum ratio of speeds of the best of ours to the best of theirs, which is in float32."""


@dataclass(frozen=True)
class Options:
    """Settings of the comparison.

    Attributes:
      models: published models.
      batches: batch sizes.
      towers: towers.
      rounds: number of turns of each contender.
      threads: processors that each contender may use.
      cpu: measure processor seconds instead of time. With one thread they depend little on what else runs.
      jimm: folder in which jimm is installed; by default jimm is left out.
      without: names of contenders to leave out.
      keep: folder for the models, which a later run reuses; by default they are removed.
    """

    models: tuple[str, ...] = ("chinese-clip-vit-b-16", "clip-vit-b-16")
    batches: tuple[int, ...] = (1, 8, 32)
    towers: tuple[Literal["image", "text"], ...] = ("image", "text")
    rounds: int = 3
    threads: int = 2
    cpu: bool = False
    jimm: Path | None = None
    without: tuple[str, ...] = ()
    keep: Path | None = None


Ratios = dict[str, float]
"""Median ratio of each contender's speed to that of the fastest other library."""


def main(options: Options) -> int:
    """Compares, prints tables and their summary, and returns the exit code."""
    results: list[tuple[str, Ratios]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            folder = (options.keep or Path(temporary)) / name
            if not folder.is_dir():
                call_apart(write_models, name, folder)
            results += compare(name, folder, options)
    columns = [each.name for each in CONTENDERS if any(each.name in ratios for _, ratios in results)]
    print(f"\n| batch | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for batch, ratios in results:
        print(f"| {batch} | {' | '.join(f'{ratios[name]:.2f}' if name in ratios else '' for name in columns)} |")
    return int(any(_missed(batch, ratios) for batch, ratios in results))


def compare(name: str, folder: Path, options: Options) -> list[tuple[str, Ratios]]:
    """Compares the contenders on one model, and returns the name of each batch with its ratios."""
    chosen = [each for each in CONTENDERS if name.startswith(each.families) and each.name not in options.without]
    for contender in list(chosen):
        if not (options.jimm if contender.apart else contender.is_installed):
            print(f"{contender.name} is not installed: left out", file=sys.stderr)
            chosen.remove(contender)
    if not any(each.side == "theirs" for each in chosen):
        raise SystemExit('no other library is left: pip install "jclip[convert]"')
    found = []
    opens = {each.name: partial(opened, each, folder, options) for each in chosen}
    with open_programs(opens, options.threads, options.cpu) as programs:
        for tower in options.towers:
            for size in options.batches:
                batch = f"{name}, {tower}, {size}"
                check(programs, chosen, tower, _batch(name, tower, size))
                print(f"\n{batch}\n")
                found.append((batch, report(chosen, take_turns(programs, options.rounds))))
    return found


def opened(contender: Contender, folder: Path, options: Options) -> Callable[[tuple[str, Any]], Batch]:
    """Opens a contender, and returns the function that prepares a batch of a tower."""
    if contender.apart and options.jimm is not None:  # its packages take the place of the installed ones
        sys.path.insert(0, str(options.jimm))
    towers = contender.open(folder, options.threads)
    return lambda given: getattr(towers, given[0])(given[1])


def report(contenders: Sequence[Contender], seconds: Seconds) -> Ratios:
    """Prints one table, and returns the median ratios."""
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min((each.name for each in contenders if each.side == "theirs"), key=medians.__getitem__)
    print(f"| contender | arithmetic | ms | speed over {best} | lowest | highest |\n|---|---|{'---:|' * 4}")
    found = {}
    for each in contenders:
        faster = ratio(seconds[each.name], seconds[best])
        found[each.name] = faster.median
        figures = f"{faster.median:.2f} | {faster.lowest:.2f} | {faster.highest:.2f}"
        print(f"| {each.name} | {each.precision} | {1000 * medians[each.name]:.1f} | {figures} |", flush=True)
    return found


def _missed(batch: str, ratios: Ratios) -> bool:
    """Returns whether an aim is missed, after printing which."""
    missed = False
    for precision, aim in AIMS.items():
        ours = [each.name for each in CONTENDERS if each.side == "ours" and each.precision == precision]
        best = max((ratios[name] for name in ours if name in ratios), default=aim)
        if best < aim:
            print(f"{batch}: the best of ours in {precision} has {best:.2f}, less than {aim}", file=sys.stderr)
            missed = True
    return missed


def _batch(name: str, tower: str, size: int) -> Any:
    """Returns `size` images as uint8 (n, 224, 224, 3), or captions in the model's language."""
    if tower == "text":
        captions = CHINESE if name.startswith("chinese") else ENGLISH
        return [captions[i % len(captions)] for i in range(size)]
    from jclip.images.preprocess import Preprocessing, to_array

    return np.stack([to_array(Preprocessing(), picture) for picture in photographs(size, 500)])


def check(programs: Mapping[str, Remote], contenders: Sequence[Contender], tower: str, batch: Any) -> None:
    """Lets every contender compute a batch. Raises SystemExit if features differ."""
    found: dict[str, np.ndarray] = {}
    for each in contenders:  # one after another, so that compilers do not compete
        features = np.asarray(programs[each.name].call("compute", (tower, batch)), np.float32)
        found[each.name] = features / np.linalg.norm(features, axis=1, keepdims=True)
    for each in contenders:
        if each.precision == "float32":
            difference = float(np.abs(found[each.name] - found["jclip"]).max())
        else:
            difference = float(1 - (found[each.name] * found["jclip"]).sum(axis=1).min())
        print(f"{each.name}: difference {difference:.1e}", file=sys.stderr)
        if not difference <= each.difference:
            raise SystemExit(f"{each.name} differs from jclip by {difference:.1e}, more than {each.difference:.0e}")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
