"""Encoder of images and texts: batches of few shapes, jitted, split over the devices of a mesh."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture, Preprocessing, normalise, to_array
from jclip.losses.normalise import l2_normalised
from jclip.models.build import ModelConfig, build_model
from jclip.models.compute import DEFAULT, Compute
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import batch_devices, local_rows, place_rows
from jclip.tokenizers.text import Tokenizer, pad

_LENGTHS = 16
"""Texts are padded to a multiple of this number of tokens: few shapes to compile, little padding."""


class Encoder:
    """Model with its preprocessing and tokenizer, whose variables are an argument of each call.

    Under a mesh (`jax.set_mesh`) a batch is split over its devices. All processes of a run must call it with the same
    inputs. Each process reads only the images of its own devices, and gets the features of all inputs.

    Args:
      config: configuration of the model.
      tokenizer: tokenizer of the text tower.
      preprocessing: preprocessing of images; None for a model without an image tower.
      context_length: maximum number of tokens of a text, special tokens included.
      batch_size: number of images or texts encoded at once.
      compute: precision of the towers.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing | None,
        context_length: int,
        batch_size: int = 256,
        compute: Compute = DEFAULT,
    ):
        if batch_size < 1:
            raise JclipError(f"batch_size is {batch_size}, but must be 1 or more: give another")
        self._tokenizer, self._preprocessing = tokenizer, preprocessing
        self._config, self._context_length, self._batch_size = config, context_length, batch_size
        self._compute = compute

    def changed(self, preprocessing: Preprocessing | None, context_length: int) -> Self:
        """Returns this encoder with other settings."""
        encoder = copy(self)
        encoder._preprocessing, encoder._context_length = preprocessing, context_length
        return encoder

    def images(
        self,
        variables: dict[str, Any],
        pictures: Sequence[Picture] | np.ndarray,
        orientation: Orientation | None = None,
    ) -> np.ndarray:
        """Encodes images as (n, d) float32, L2-normalised.

        Args:
          variables: variables of the model.
          pictures: PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3). A sequence is read batch by batch. Its
            method `name_of`, if it has one, returns the name of image i for errors.
          orientation: overrides the orientation of the preprocessing; None keeps it.

        Raises:
          JclipError: an item, which the message names, is not an image or cannot be read; `pictures` is not a list; or
            the model has no image tower.
        """
        if self._preprocessing is None:
            raise JclipError("this bundle is a text encoder: it has no image tower to encode images with")
        encode = self._image_function(self._preprocessing)
        pixels = isinstance(pictures, np.ndarray) and pictures.dtype.kind in "biufc"
        if isinstance(pictures, str | bytes | Path | Image.Image) or (pixels and pictures.ndim == 3):  # type: ignore[union-attr]
            raise JclipError("encode_image takes a list of images: put a single image into brackets")
        pictures = _listed(pictures, "encode_image", "images")
        if orientation not in (None, *get_args(Orientation)):
            raise JclipError(f"orientation is {orientation!r}, but must be 'apply', 'ignore' or None: give another")
        preprocessing = replace(self._preprocessing, orientation=orientation or self._preprocessing.orientation)
        name_of = getattr(pictures, "name_of", lambda number: "")

        def row(number: int) -> np.ndarray:
            picture = pictures[number]
            name = "" if isinstance(picture, str | Path) else f"pictures[{number}]"  # a path names itself
            return to_array(preprocessing, picture, name_of(number) or name)

        def rows(some: Sequence[int]) -> np.ndarray:  # decodes one batch
            return np.stack([row(number) for number in some])

        if not len(pictures):
            example = np.zeros((1, preprocessing.size, preprocessing.size, 3), np.uint8)
            return self._no_features(encode, variables, example)
        return self._in_batches(encode, variables, len(pictures), rows)

    def texts(self, variables: dict[str, Any], sentences: Sequence[str]) -> np.ndarray:
        """Encodes texts as (n, d) float32, L2-normalised.

        Longer texts are truncated to `context_length` tokens and keep their end token. Raises JclipError if an item,
        which the message names, is not a string or has an unpaired surrogate; or `sentences` is not a list.
        """
        if isinstance(sentences, str | bytes):
            raise JclipError("encode_text takes a list of texts: put a single text into brackets")
        sentences = list(_listed(sentences, "encode_text", "texts"))
        encoded = self._tokenizer.encode(sentences or [""], self._context_length)
        length = padded_length(max(map(len, encoded)), self._context_length)
        ids = pad(encoded, length, self._tokenizer.pad_id)
        encode = self._text_function()
        if not sentences:
            return self._no_features(encode, variables, ids)
        return self._in_batches(encode, variables, len(ids), lambda some: ids[list(some)])

    def _image_function(self, preprocessing: Preprocessing) -> Callable[..., Any]:
        """Returns the function of variables and uint8 images (b, h, w, 3) -> L2-normalised features (b, d)."""
        return image_encoder(self._config, preprocessing, self._compute)

    def _text_function(self) -> Callable[..., Any]:
        """Returns the function of variables and token ids (b, l) -> L2-normalised features (b, d)."""
        return text_encoder(self._config, self._compute)

    def _in_batches(
        self, function: Any, variables: dict[str, Any], count: int, rows: Callable[[Sequence[int]], np.ndarray]
    ) -> np.ndarray:
        mesh = jax.sharding.get_mesh()
        parts = []
        for start in range(0, count, self._batch_size):
            size = min(self._batch_size, count - start)
            # Padded with its first row to a power of two or a whole batch, so that few shapes are compiled.
            power_of_two = 1 << (size - 1).bit_length()
            filled = self._batch_size if count > self._batch_size else min(power_of_two, self._batch_size)
            if not mesh.empty:
                filled = -(-filled // batch_devices(mesh)) * batch_devices(mesh)
            numbers = [start + (i if i < size else 0) for i in range(filled)]
            if mesh.empty:
                batch: Any = _once(rows, numbers)
            else:
                mine = [numbers[i] for i in local_rows(filled, mesh)]
                # An unreadable image raises on all processes, so that none waits for another.
                batch = place_rows(everywhere(partial(_once, rows, mine)), filled, mesh)
            parts.append(np.asarray(function(variables, batch))[:size])
        return np.concatenate(parts)

    def _no_features(self, function: Any, variables: dict[str, Any], example: np.ndarray) -> np.ndarray:
        """Returns an empty array of features, (0, d); `example` is a batch of inputs."""
        return np.zeros((0, jax.eval_shape(function, variables, example).shape[1]), np.float32)


def padded_length(tokens: int, context_length: int) -> int:
    """Returns the number of tokens to which texts of at most `tokens` are padded.

    >>> padded_length(3, 52), padded_length(17, 52), padded_length(50, 52)
    (16, 32, 52)
    """
    return min(context_length, -(-tokens // _LENGTHS) * _LENGTHS)


def _listed(items: Any, function: str, what: str) -> Any:
    """Returns the items as a sequence or an array."""
    if (
        isinstance(items, Mapping)
        or not isinstance(items, Iterable)
        or (isinstance(items, np.ndarray) and not items.ndim)
    ):
        raise JclipError(f"{function} takes a list of {what}, not {type(items).__name__}: put them into brackets")
    return items if isinstance(items, np.ndarray | Sequence) else list(items)


# Models of equal towers share the compiled functions: that of a checkpoint compiles nothing after that of the start.
@lru_cache(maxsize=8)
def image_encoder(config: ModelConfig, preprocessing: Preprocessing, compute: Compute = DEFAULT) -> Callable[..., Any]:
    """Returns the jitted function of variables and uint8 images (b, h, w, 3) -> L2-normalised features (b, d)."""
    model = build_model(config, compute)

    @jax.jit
    def encode(variables: dict[str, Any], images_bhwc: jax.Array) -> jax.Array:
        images_bhwc = normalise(preprocessing, images_bhwc.astype(jnp.float32))
        image_bd: Any = model.apply(variables, images_bhwc, method="encode_image")
        return _replicated(l2_normalised(image_bd))

    return encode


@lru_cache(maxsize=8)
def text_encoder(config: ModelConfig, compute: Compute = DEFAULT) -> Callable[..., Any]:
    """Returns the jitted function of variables and token ids (b, l) -> L2-normalised features (b, d)."""
    model = build_model(config, compute)

    @jax.jit
    def encode(variables: dict[str, Any], ids_bl: jax.Array) -> jax.Array:
        text_bd: Any = model.apply(variables, ids_bl, method="encode_text")
        return _replicated(l2_normalised(text_bd))

    return encode


def _replicated(features_bd: jax.Array) -> jax.Array:
    """Replicates the features over the devices of the current mesh, if any."""
    if jax.sharding.get_abstract_mesh().empty:
        return features_bd
    return jax.lax.with_sharding_constraint(features_bd, jax.sharding.PartitionSpec())


def _once(rows: Callable[[Sequence[int]], np.ndarray], numbers: Sequence[int]) -> np.ndarray:
    """Returns rows by number; computes a repeated row once."""
    unique = list(dict.fromkeys(numbers))
    at = {number: i for i, number in enumerate(unique)}
    return rows(unique)[[at[number] for number in numbers]]
