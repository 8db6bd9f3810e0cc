"""Zero-shot classification of single image files by a user's own labels.

Axes: n images, c labels, p prompts.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jclip.bundle import Bundle
from jclip.data.sources.class_files import ClassFile
from jclip.errors import JclipError
from jclip.evaluate.metrics.zero_shot import classifier, cosines, softmax
from jclip.evaluate.tasks.evaluation import Encodes
from jclip.images.opening import PictureError, cores
from jclip.images.preprocess import Orientation, Preprocessing, to_array
from jclip.plain import shown

_AT_ONCE = 64
"""Images that are decoded and encoded together."""


class LabelModel(Encodes, Protocol):
    """Model with both towers, such as `jclip.load` returns."""

    bundle: Bundle
    similarity_scale: float


class Labelled(NamedTuple):
    """Image file with its scores.

    Attributes:
      file: the image.
      cosines_c: cosine similarity with each label; empty if the image cannot be read.
      probabilities_c: softmax over the labels of the cosines times the model's `similarity_scale`.
      trouble: reason why the image cannot be read; empty if it can.
    """

    file: Path
    cosines_c: npt.NDArray[np.float32]
    probabilities_c: npt.NDArray[np.float32]
    trouble: str = ""

    def best(self, k: int) -> list[int]:
        """Returns the numbers of the `k` most similar labels, the most similar first."""
        return [int(number) for number in np.argsort(-self.cosines_c, kind="stable")[:k]]


def label_files(
    model: LabelModel,
    files: Sequence[ClassFile],
    labels: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    orientation: Orientation = "apply",
) -> Iterator[Labelled]:
    """Yields the scores of each file, in order.

        for found in label_files(jclip.load("bundle"), image_files(["holiday"]), ["猫", "狗"], ["一张{}的照片"]):
            print(found.file, found.probabilities_c)

    The probabilities are calibrated as the model was trained: the learned logit scale is the factor of the cosines.
    `zero_shot` uses 100 instead, as the papers' evaluations do.

    Args:
      model: model with both towers.
      files: image files; one with a reason is not read.
      labels: at least two different labels.
      templates: sentences with {} in place of the label; a label's vector is the mean over them.
      orientation: "apply" rotates images by their EXIF orientation, "ignore" does not.

    Raises:
      JclipError: the model has no image tower, or the labels are too few, equal, or too long for its context.
    """
    preprocessing = model.bundle.preprocessing
    if preprocessing is None:
        raise JclipError("this bundle is a text encoder: give one that has an image tower too")
    _check_labels(model.bundle, labels, templates)
    classes_cd = classifier(model.encode_text, labels, templates)
    read = partial(_pixels, replace(preprocessing, orientation=orientation))
    none = np.zeros(0, np.float32)
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            decoded = list(pool.map(read, some))
            pixels = [each for each in decoded if isinstance(each, np.ndarray)]
            scores = iter(_scores(model, np.stack(pixels), classes_cd) if pixels else ())
            for one, each in zip(some, decoded, strict=True):
                yield Labelled(one.file, *((none, none, each) if isinstance(each, str) else next(scores)))


def fitting_templates(bundle: Bundle, labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Returns the templates that fit into the model's context with every label."""
    longest = bundle.context_length
    return [
        template
        for template in templates
        if all(length <= longest for length in _lengths(bundle, [_sentence(template, label) for label in labels]))
    ]


def _scores(
    model: LabelModel, images_nhwc: npt.NDArray[np.uint8], classes_cd: npt.NDArray[np.float32]
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Returns (cosines, probabilities) of each image."""
    cosines_nc = cosines(model.encode_image(images_nhwc), classes_cd)
    return list(zip(cosines_nc, softmax(model.similarity_scale * cosines_nc), strict=True))


def _pixels(preprocessing: Preprocessing, one: ClassFile) -> npt.NDArray[np.uint8] | str:
    """Returns the image as uint8 (size, size, 3), or the reason why it cannot be read."""
    if one.reason:
        return one.reason
    try:
        return to_array(preprocessing, one.file)
    except PictureError as error:
        return error.why
    except JclipError as error:
        return str(error)


def _check_labels(bundle: Bundle, labels: Sequence[str], templates: Sequence[str]) -> None:
    if len(labels) < 2:
        raise JclipError(f"{len(labels)} labels: give at least two, because probabilities compare them")
    twice = next((label for number, label in enumerate(labels) if label in labels[:number]), None)
    if twice is not None:
        raise JclipError(f"label {shown(twice, 60)!r} is given twice: give each once")
    sentences = [_sentence(template, label) for label in labels for template in templates]
    for sentence, length in zip(sentences, _lengths(bundle, sentences), strict=True):
        if length > bundle.context_length:
            shorter = "shorten the label" if sentence in labels else "shorten the label, or give shorter prompts"
            raise JclipError(
                f"{shown(sentence, 80)!r} is longer than the model's {bundle.context_length} tokens: {shorter}"
            )


def _sentence(template: str, label: str) -> str:
    return template.replace("{}", label)


def _lengths(bundle: Bundle, sentences: Sequence[str]) -> list[int]:
    """Returns numbers of tokens; of longer sentences, a number above the model's context."""
    return [len(ids) for ids in bundle.tokenizer.encode(list(sentences), bundle.context_length + 1)]
