"""The classification sets of ELEVATER's Image Classification in the Wild, and ImageNet, by name.

Li et al. 2022 (ELEVATER); numbers and metrics as in Yang et al. 2022 (Chinese-CLIP), table 12. The names are those of
cn_clip's zeroshot_evaluation.py, so that submissions carry them.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError, unreadable

Metric = Literal["accuracy", "mean_per_class", "map11", "roc_auc"]


@dataclass(frozen=True)
class Benchmark:
    """A classification set.

    Attributes:
      title: for tables.
      classes, pictures: of its test split.
      metric: what is reported of it.
      kind: what its classes are, for prompts of their own: "flower"; "general" for anything.
    """

    title: str
    classes: int
    pictures: int
    metric: Metric = "accuracy"
    kind: str = "general"

    def check(self, name: str, classes: int, pictures: int) -> None:
        """Raises JclipError when data have another number of classes or pictures: another split, or not all of it."""
        for what, here, there in (("classes", classes, self.classes), ("pictures", pictures, self.pictures)):
            if here != there:
                raise JclipError(
                    f"{name} has {here} {what}, but the test split of {self.title} has {there}: it is another split or "
                    "not all of it; complete it, or leave --dataset out"
                )


BENCHMARKS: Mapping[str, Benchmark] = {
    "caltech-101": Benchmark("Caltech-101", 101, 6084, "mean_per_class"),
    "cifar-10": Benchmark("CIFAR-10", 10, 10_000),
    "cifar-100": Benchmark("CIFAR-100", 100, 10_000),
    "country211": Benchmark("Country-211", 211, 21_100, kind="country"),
    "dtd": Benchmark("DTD", 47, 1880, kind="texture"),
    "eurosat_clip": Benchmark("EuroSAT", 10, 5000, kind="satellite"),
    "fer-2013": Benchmark("FER-2013", 7, 3589),
    "fgvc-aircraft-2013b-variants102": Benchmark("FGVC-Aircraft", 100, 3333, "mean_per_class", "aircraft"),
    "food-101": Benchmark("Food-101", 101, 25_250, kind="food"),
    "gtsrb": Benchmark("GTSRB", 43, 12_630),
    "hateful-memes": Benchmark("Hateful-Memes", 2, 500, "roc_auc"),
    "kitti-distance": Benchmark("KITTI-Distance", 4, 711),
    "mnist": Benchmark("MNIST", 10, 10_000),
    "oxford-flower-102": Benchmark("Flowers-102", 102, 6149, "mean_per_class", "flower"),
    "oxford-iiit-pets": Benchmark("Oxford Pets", 37, 3669, "mean_per_class", "pet"),
    "patch-camelyon": Benchmark("PatchCamelyon", 2, 32_768),
    "rendered-sst2": Benchmark("Rendered-SST2", 2, 1821),
    "resisc45_clip": Benchmark("RESISC-45", 45, 25_200, kind="satellite"),
    "stanford-cars": Benchmark("Stanford-Cars", 196, 8041, kind="car"),
    "voc-2007-classification": Benchmark("VOC-2007", 20, 4952, "map11"),
    "imagenet": Benchmark("ImageNet-1K", 1000, 50_000),
}


def get_benchmark(name: str) -> Benchmark:
    """The set of that name.

    Raises:
      JclipError: there is none; the message gives those that are close.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    close = difflib.get_close_matches(name.lower(), BENCHMARKS, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(BENCHMARKS)}"
    raise JclipError(f"there is no data set {name!r}: {hint}")


def read_order(file: Path, pictures: int) -> list[int]:
    """ELEVATER's order of the pictures: a JSON list of row numbers.

    Raises:
      JclipError: it is none, or names a row that is not there.
    """
    try:
        order = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(file, error, "as a JSON list of row numbers") from None
    right = isinstance(order, list) and all(type(row) is int and 0 <= row < pictures for row in order)
    if not right:
        raise JclipError(f"{file} must be a list of row numbers from 0 to {pictures - 1}: take the data set's own")
    return list(order)


def submission(
    probabilities_nc: npt.NDArray[Any],
    *,
    model: str,
    dataset: str,
    parameters: int,
    image_parameters: int,
    order: Sequence[int] | None = None,
) -> dict[str, Any]:
    """What ELEVATER's server takes, as cn_clip's zeroshot_evaluation.py writes it.

    Args:
      probabilities_nc: of each class, softmax over classes of 100 times the cosines.
      model: its name there.
      dataset: a name of `BENCHMARKS`.
      parameters, image_parameters: of the model, of its image tower.
      order: the rows in the server's order; None for that of the files.
    """
    rows = np.asarray(probabilities_nc, np.float32)
    rows = rows if order is None else rows[list(order)]
    return {
        "model_name": model,
        "dataset_name": dataset,
        "num_trainable_params": 0,
        "num_params": parameters,
        "num_visual_params": image_parameters,
        "num_backbone_params": parameters,
        "n_shot": 0,
        "rnd_seeds": [123],
        "predictions": [[[round(value, 6) for value in row] for row in rows.tolist()]],
    }
