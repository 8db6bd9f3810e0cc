"""Zero-shot classification by prompts (Radford et al. 2021, section 3.1).

Axes: n images, c classes, p prompts, d features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jclip.errors import JclipError

Array = npt.NDArray[Any]

SCALE = 100.0
"""Factor on cosines before the softmax. It is fixed, as in both papers' code; the learned logit scale is not used."""

_CLASSES_AT_ONCE = 32


def classifier(
    encode_text: Callable[[list[str]], Array], names: Sequence[str], templates: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Returns the (c, d) unit vectors of the classes: the mean over prompts of their sentences' unit vectors.

    Args:
      encode_text: encodes sentences as (n, d) features of any norm, such as `Model.encode_text`.
      names: class names.
      templates: sentences with {} in place of the name.

    Raises:
      JclipError: no class or no template is given.
    """
    if not names or not templates:
        raise JclipError(f"{len(names)} classes and {len(templates)} prompts: give at least one of each")
    parts = []
    for start in range(0, len(names), _CLASSES_AT_ONCE):
        some = names[start : start + _CLASSES_AT_ONCE]
        text_cpd = encode_text([template.replace("{}", name) for name in some for template in templates])
        text_cpd = _unit(text_cpd.reshape(len(some), len(templates), -1).astype(np.float64))
        parts.append(_unit(text_cpd.mean(axis=1)))
    return np.concatenate(parts).astype(np.float32)


def cosines(image_nd: Array, classes_cd: Array) -> npt.NDArray[np.float32]:
    """Returns (n, c) cosines of features of any norm."""
    found: npt.NDArray[np.float32] = _unit(image_nd) @ _unit(classes_cd).T
    return found


def probabilities(image_nd: Array, classes_cd: Array) -> npt.NDArray[np.float32]:
    """Returns the (n, c) softmax over classes of 100 times the cosines."""
    return softmax(SCALE * cosines(image_nd, classes_cd))


def softmax(logits_nc: Array) -> Array:
    """Returns the softmax over each row."""
    powers_nc = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
    return np.asarray(powers_nc / powers_nc.sum(axis=1, keepdims=True))


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
