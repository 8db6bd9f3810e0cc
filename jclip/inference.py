"""Features from a model: pictures and sentences in, L2-normalised float32 vectors out, batched and jitted inside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jclip import rules
from jclip.bundle import Bundle, check_parts, load_bundle
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture, Preprocessing, normalise, to_array
from jclip.losses.normalise import l2_normalised
from jclip.models.build import ModelConfig, build_model
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import batch_devices, local_rows, place_rows
from jclip.tokenizers.text import Tokenizer, pad

_LENGTHS = 16
"""Texts are padded to a multiple of this, not to the context length: few shapes to compile, little padding."""


class Encoder:
    """A model's two towers with the preprocessing and the tokenizer they were trained with.

    The variables are an argument of each call's inner function, so that one encoder serves a whole training run.

    Under a mesh (`jax.set_mesh`) a batch is split over its devices. All processes of a run call with the same inputs;
    each reads the pictures of its own devices only, and the features come to all.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing | None,
        context_length: int,
        batch_size: int = 256,
    ):
        if batch_size < 1:
            raise JclipError(f"batch_size is {batch_size}, but must be 1 or more")
        self._model = build_model(config)
        self._tokenizer, self._preprocessing = tokenizer, preprocessing
        self._context_length, self._batch_size = context_length, batch_size

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the compiled functions out: another process compiles its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_image_fn", "_text_fn")}

    def images(
        self,
        variables: dict[str, Any],
        pictures: Sequence[Picture] | np.ndarray,
        orientation: Orientation | None = None,
    ) -> np.ndarray:
        """(n, d) float32, L2-normalised.

        Args:
          variables: of the model.
          pictures: PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3). A sequence is read a batch at a time;
            if it has a method `name_of`, that says what an error calls the picture of a number.
          orientation: of the camera, in place of the preprocessing's.

        Raises:
          JclipError: a picture that cannot be read, or anything else; it is named. A picture alone, for a list is
            wanted. Or a model that is a text encoder alone.
        """
        if self._preprocessing is None:
            raise JclipError("this bundle is a text encoder alone: it has no image tower to encode pictures with")
        pixels = isinstance(pictures, np.ndarray) and pictures.dtype.kind in "biufc"
        if isinstance(pictures, str | bytes | Path | Image.Image) or (pixels and pictures.ndim == 3):  # type: ignore[union-attr]
            raise JclipError("encode_image takes a list of pictures: put the one into brackets")
        pictures = _listed(pictures, "encode_image", "pictures")
        if orientation not in (None, *get_args(Orientation)):
            raise JclipError(f"orientation is {orientation!r}, but must be 'apply', 'ignore' or None")
        preprocessing = replace(self._preprocessing, orientation=orientation or self._preprocessing.orientation)
        name_of = getattr(pictures, "name_of", lambda number: "")

        def row(number: int) -> np.ndarray:
            picture = pictures[number]
            return to_array(preprocessing, picture, name_of(number) or _numbered(picture, number))

        def rows(some: Sequence[int]) -> np.ndarray:  # a batch of pictures is decoded at a time, not all of them
            return np.stack([row(number) for number in some])

        if not len(pictures):
            return self._nothing(self._image_fn, variables, np.zeros((1, *(preprocessing.size,) * 2, 3), np.uint8))
        return self._in_batches(self._image_fn, variables, len(pictures), rows)

    def texts(self, variables: dict[str, Any], sentences: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised; sentences beyond the context length are cut, their last token kept.

        Raises:
          JclipError: a string alone, which would be taken letter by letter; or an item that is not a whole string, with
            its number.
        """
        if isinstance(sentences, str | bytes):
            raise JclipError("encode_text takes a list of sentences: put the one into brackets")
        sentences = list(_listed(sentences, "encode_text", "sentences"))
        encoded = self._tokenizer.encode(sentences or [""], self._context_length)
        longest = max(map(len, encoded))
        length = min(self._context_length, -(-longest // _LENGTHS) * _LENGTHS)
        ids = pad(encoded, length, self._tokenizer.pad_id)
        if not sentences:
            return self._nothing(self._text_fn, variables, ids)
        return self._in_batches(self._text_fn, variables, len(ids), lambda some: ids[list(some)])

    @cached_property
    def _image_fn(self) -> Any:
        preprocessing = self._preprocessing
        assert preprocessing is not None

        @jax.jit
        def encode(variables: dict[str, Any], images_bhwc: jax.Array) -> jax.Array:
            images_bhwc = normalise(preprocessing, images_bhwc.astype(jnp.float32))
            image_bd: Any = self._model.apply(variables, images_bhwc, method="encode_image")
            return _everywhere(l2_normalised(image_bd))

        return encode

    @cached_property
    def _text_fn(self) -> Any:
        @jax.jit
        def encode(variables: dict[str, Any], ids_bl: jax.Array) -> jax.Array:
            text_bd: Any = self._model.apply(variables, ids_bl, method="encode_text")
            return _everywhere(l2_normalised(text_bd))

        return encode

    def _in_batches(
        self, function: Any, variables: dict[str, Any], count: int, rows: Callable[[Sequence[int]], np.ndarray]
    ) -> np.ndarray:
        mesh = jax.sharding.get_mesh()
        parts = []
        for start in range(0, count, self._batch_size):
            size = min(self._batch_size, count - start)
            # A power of two, or all of a batch, so that few shapes are compiled; filled up with its first row.
            filled = self._batch_size if count > self._batch_size else _round_up(size, self._batch_size)
            if not mesh.empty:
                filled = -(-filled // batch_devices(mesh)) * batch_devices(mesh)
            numbers = [start + (i if i < size else 0) for i in range(filled)]
            if mesh.empty:
                batch: Any = _once(rows, numbers)
            else:
                mine = [numbers[i] for i in local_rows(filled, mesh)]
                # What one process cannot read, none waits for.
                batch = place_rows(everywhere(partial(_once, rows, mine)), filled, mesh)
            parts.append(np.asarray(function(variables, batch))[:size])
        return np.concatenate(parts)

    def _nothing(self, function: Any, variables: dict[str, Any], one: np.ndarray) -> np.ndarray:
        """No rows, of the right width."""
        return np.zeros((0, jax.eval_shape(function, variables, one).shape[1]), np.float32)


class Model:
    """Bundle that is ready to use: `jclip.load(folder)`.

    It can be pickled, whether it has encoded or not; another process compiles anew. It must not be taken through a
    fork: see `load`.

    Attributes:
      bundle: the folder's contents: config, params, tokenizer, preprocessing, provenance.
      variables: the parameters (and batch statistics) on the device, float32: the first argument of `apply`.
      scale: factor on cosine similarities: exp of the parameter logit_scale; 1 for a text encoder alone.

    Raises:
      JclipError: the tokenizer, the preprocessing or the context length is not for the towers, or the logit scale is
        no number.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 256):
        check_parts(bundle)
        self.bundle = bundle
        variables = {"params": bundle.params, **({"batch_stats": bundle.stats} if bundle.stats else {})}
        self.variables: dict[str, Any] = jax.device_put(variables)
        dual = isinstance(bundle.config, DualEncoderConfig)
        self.scale = _factor(float(np.float32(bundle.params["logit_scale"]))) if dual else 1.0
        self._encoder = Encoder(
            bundle.config, bundle.tokenizer, bundle.preprocessing, bundle.context_length, batch_size
        )

    @property
    def params(self) -> dict[str, Any]:
        """The nested parameters, on the device."""
        params: dict[str, Any] = self.variables["params"]
        return params

    @property
    def apply(self) -> Callable[..., Any]:
        """The model as a pure function: `apply(variables, images, method="encode_image")`, and "encode_text"."""
        return build_model(self.bundle.config).apply

    def encode_image(
        self, pictures: Sequence[Picture] | np.ndarray, *, orientation: Orientation | None = None
    ) -> np.ndarray:
        """Encodes PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3) as (n, d) float32, L2-normalised.

        Args:
          pictures: the list.
          orientation: "apply" turns pictures whose EXIF says how the camera was held upright, "ignore" takes no notice;
            None for what the bundle's preprocessing says, which is "ignore" for CLIP and Chinese-CLIP.

        Raises:
          JclipError: an item that is not a picture, or cannot be read; it is named, a path by itself, anything else by
            its place in the list. Or the bundle is a text encoder alone, or a feature is not finite: then the first
            parameter that is not is named.
        """
        return self._finite(self._encoder.images(self.variables, pictures, orientation), "picture")

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes strings as (n, d) float32, L2-normalised.

        Sentences beyond the context length are cut, their last token kept.

        Raises:
          JclipError: an item that is not a string, or holds half a character, with its place in the list. Or a
            feature is not finite, as for `encode_image`.
        """
        return self._finite(self._encoder.texts(self.variables, sentences), "text")

    def similarity(
        self,
        pictures: Sequence[Picture] | np.ndarray,
        sentences: Sequence[str],
        *,
        orientation: Orientation | None = None,
    ) -> np.ndarray:
        """Computes (pictures, sentences) logits: cosines times `scale`."""
        images_nd = self.encode_image(pictures, orientation=orientation)
        return self.scale * images_nd @ self.encode_text(sentences).T

    def _finite(self, features_nd: np.ndarray, what: str) -> np.ndarray:
        """The features, checked. NaN would go through a ranking unseen."""
        broken = np.flatnonzero(~np.isfinite(features_nd).all(axis=1))
        if not len(broken):
            return features_nd
        which = f"{len(broken)} of {len(features_nd)} {what} features are not finite, first that of {what} {broken[0]}"
        leaves = rules.paths_of(self.variables)
        culprit = next((path for path, leaf in leaves.items() if not jnp.isfinite(leaf).all()), None)
        if culprit is None:
            raise JclipError(f"{which}: the parameters are finite, but too large; take an earlier checkpoint")
        raise JclipError(
            f"{which}: the model's {culprit.partition('/')[2]} holds NaN or infinity, so it has diverged or is "
            "damaged; take an earlier checkpoint"
        )


def _factor(logit_scale: float) -> float:
    """The exponential of the parameter, which every similarity is multiplied by."""
    with np.errstate(over="ignore"):
        factor = float(np.exp(np.float32(logit_scale)))
    if not np.isfinite(factor):
        raise JclipError(
            f"logit_scale is {logit_scale:g}, and its exponential is no number: take an earlier checkpoint"
        )
    return factor


def load(folder: str | Path) -> Model:
    """Loads the model in a bundle folder.

    A process that has loaded a model must not fork: jax runs threads, and the child may hang. `os.fork` forks, and so
    does `multiprocessing` by default on Linux before Python 3.14. Use `multiprocessing.get_context("spawn")`, and load
    the model in each process, or send it there: a model can be pickled.

    Raises:
      JclipError: the folder is no bundle, or damaged.
    """
    return Model(load_bundle(folder))


def _listed(items: Any, function: str, what: str) -> Any:
    """The items as a sequence or an array."""
    if (
        isinstance(items, Mapping)
        or not isinstance(items, Iterable)
        or (isinstance(items, np.ndarray) and not items.ndim)
    ):
        raise JclipError(f"{function} takes a list of {what}, not {type(items).__name__}: put them into brackets")
    return items if isinstance(items, np.ndarray | Sequence) else list(items)


def _numbered(picture: Any, number: int) -> str:
    """What an error calls a picture: a path by itself, anything else by its place."""
    return "" if isinstance(picture, str | Path) else f"pictures[{number}]"


def _everywhere(features_bd: jax.Array) -> jax.Array:
    """The features, under a mesh a copy of them on every device."""
    if jax.sharding.get_abstract_mesh().empty:
        return features_bd
    return jax.lax.with_sharding_constraint(features_bd, jax.sharding.PartitionSpec())


def _once(rows: Callable[[Sequence[int]], np.ndarray], numbers: Sequence[int]) -> np.ndarray:
    """Rows by their numbers, each made once however often it is wanted."""
    unique = list(dict.fromkeys(numbers))
    at = {number: i for i, number in enumerate(unique)}
    return rows(unique)[[at[number] for number in numbers]]


def _round_up(count: int, most: int) -> int:
    """The next power of two, but no more than `most`: a handful of pictures does not compute a whole batch."""
    return min(1 << (count - 1).bit_length(), most)
