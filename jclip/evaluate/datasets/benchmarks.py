"""Classification sets of ELEVATER's Image Classification in the Wild, and ImageNet, by name.

Li et al. 2022 (ELEVATER); sizes and metrics from Yang et al. 2022 (Chinese-CLIP), table 12. Names as in cn_clip's
zeroshot_evaluation.py, for submissions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jclip.data.elevater import CLASSES, counts
from jclip.errors import JclipError
from jclip.io.json_files import read_json
from jclip.names import suggestion

Metric = Literal["accuracy", "mean_per_class", "map11", "roc_auc"]


@dataclass(frozen=True)
class Benchmark:
    """Classification set.

    Attributes:
      title: name for tables.
      classes, pictures: numbers of its test split.
      metric: headline metric.
      kind: kind of the classes, such as "flower", which selects prompts; "general" for any.
      counts: allowed numbers of classes; `classes` alone when empty.
    """

    title: str
    classes: int
    pictures: int
    metric: Metric = "accuracy"
    kind: str = "general"
    counts: tuple[int, ...] = ()

    def check(self, name: str, classes: int, pictures: int) -> None:
        """Raises JclipError if the data called `name` do not have the test split's numbers of classes and images."""
        known = (("classes", classes, self.counts or (self.classes,)), ("images", pictures, (self.pictures,)))
        for what, found, expected in known:
            if found not in expected:
                wanted = " or ".join(map(str, expected))
                raise JclipError(
                    f"{name} has {found} {what}, but the test split of {self.title} has {wanted}: it is another split "
                    "or not all of it; complete it, or omit --dataset"
                )


def _elevater(
    name: str, title: str, pictures: int, metric: Metric = "accuracy", kind: str = "general"
) -> tuple[str, Benchmark]:
    return name, Benchmark(title, CLASSES[name], pictures, metric, kind, counts(name))


BENCHMARKS: Mapping[str, Benchmark] = dict(
    [
        _elevater("caltech-101", "Caltech-101", 6084, "mean_per_class"),
        _elevater("cifar-10", "CIFAR-10", 10_000),
        _elevater("cifar-100", "CIFAR-100", 10_000),
        _elevater("country211", "Country-211", 21_100, kind="country"),
        _elevater("dtd", "DTD", 1880, kind="texture"),
        _elevater("eurosat_clip", "EuroSAT", 5000, kind="satellite"),
        _elevater("fer-2013", "FER-2013", 3589),
        _elevater("fgvc-aircraft-2013b-variants102", "FGVC-Aircraft", 3333, "mean_per_class", "aircraft"),
        _elevater("food-101", "Food-101", 25_250, kind="food"),
        _elevater("gtsrb", "GTSRB", 12_630),
        _elevater("hateful-memes", "Hateful-Memes", 500, "roc_auc"),
        _elevater("kitti-distance", "KITTI-Distance", 711),
        _elevater("mnist", "MNIST", 10_000),
        _elevater("oxford-flower-102", "Flowers-102", 6149, "mean_per_class", "flower"),
        _elevater("oxford-iiit-pets", "Oxford Pets", 3669, "mean_per_class", "pet"),
        _elevater("patch-camelyon", "PatchCamelyon", 32_768),
        _elevater("rendered-sst2", "Rendered-SST2", 1821),
        _elevater("resisc45_clip", "RESISC-45", 25_200, kind="satellite"),
        _elevater("stanford-cars", "Stanford-Cars", 8041, kind="car"),
        _elevater("voc-2007-classification", "VOC-2007", 4952, "map11"),
        ("imagenet", Benchmark("ImageNet-1K", 1000, 50_000)),
    ]
)


def get_benchmark(name: str) -> Benchmark:
    """Returns a classification set by name. Raises JclipError, with similar names, if the name is unknown."""
    if name not in BENCHMARKS:
        raise JclipError(f"there is no data set {name!r}: {suggestion(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def read_order(file: Path, pictures: int) -> list[int]:
    """Reads ELEVATER's order of the images: a JSON list of row numbers.

    Raises JclipError if the file is not such a list, or does not name each row once.
    """
    order = read_json(file, "as a JSON list of row numbers")
    if not isinstance(order, list) or not all(type(row) is int and 0 <= row < pictures for row in order):
        raise JclipError(f"{file} must be a list of row numbers from 0 to {pictures - 1}: use the data set's own")
    if len(order) != pictures or len(set(order)) != pictures:
        raise JclipError(
            f"{file} has {len(order)} row numbers, {len(set(order))} of them different, for {pictures} images: use "
            "the data set's own, which has each once"
        )
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
    """Returns a submission for ELEVATER's server, as cn_clip's zeroshot_evaluation.py writes it.

    Args:
      probabilities_nc: softmax over classes of 100 times the cosines.
      model, dataset: name of the model on the server, and a name of `BENCHMARKS`.
      parameters, image_parameters: numbers of parameters of the model and of its image tower.
      order: rows in the server's order; None for the order of the files.
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
