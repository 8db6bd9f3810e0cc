"""Models that encode images and texts as L2-normalised float32 vectors, batched and jitted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jclip import rules
from jclip.bundle import Bundle, bundle_stamp, check_parts, load_bundle, save_bundle
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture, Preprocessing, normalise, to_array
from jclip.io.cache import recall, remember
from jclip.losses.normalise import l2_normalised
from jclip.models.build import ModelConfig, build_model, variables_of
from jclip.parallel.processes import everywhere
from jclip.parallel.sharding import batch_devices, local_rows, place_rows
from jclip.plain import shown
from jclip.tokenizers.text import Tokenizer, pad

_IDENTITY = "bundle 1"
"""Kind of `Bundle.digest` in the cache. A change of the digest needs another number."""

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
            raise JclipError(f"batch_size is {batch_size}, but must be 1 or more: give another")
        self._tokenizer, self._preprocessing = tokenizer, preprocessing
        self._config, self._context_length, self._batch_size = config, context_length, batch_size

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
        longest = max(map(len, encoded))
        length = min(self._context_length, -(-longest // _LENGTHS) * _LENGTHS)
        ids = pad(encoded, length, self._tokenizer.pad_id)
        encode = self._text_function()
        if not sentences:
            return self._no_features(encode, variables, ids)
        return self._in_batches(encode, variables, len(ids), lambda some: ids[list(some)])

    def _image_function(self, preprocessing: Preprocessing) -> Callable[..., Any]:
        """Returns the function of variables and uint8 images (b, h, w, 3) -> L2-normalised features (b, d)."""
        return _image_encoder(self._config, preprocessing)

    def _text_function(self) -> Callable[..., Any]:
        """Returns the function of variables and token ids (b, l) -> L2-normalised features (b, d)."""
        return _text_encoder(self._config)

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


class Origin(NamedTuple):
    """Folder that a bundle was read from, and the folder's `bundle_stamp` before it was read."""

    folder: Path
    stamp: str


class Model:
    """Model that is ready to use: `jclip.load(folder)`.

    It can be pickled. It must not be used after a fork: see `load`.

    Args:
      bundle: contents of the model, read by `load_bundle`.
      batch_size: number of images or texts encoded at once.
      origin: origin of the bundle, if it was read from a folder: then its identity is computed once.

    Attributes:
      bundle: config, params, tokenizer, preprocessing, provenance.
      variables: parameters and batch statistics on the device, float32: the first argument of `apply`.
      similarity_scale: factor on cosine similarities: exp(logit_scale); 1 for a model without an image tower.

    Raises:
      JclipError: tokenizer, preprocessing or context length do not fit the towers, or the scale is not finite.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 256, *, origin: Origin | None = None):
        check_parts(bundle)
        self.bundle, self._origin = bundle, origin
        variables = variables_of(bundle.params, bundle.stats)
        self.variables: dict[str, Any] = jax.device_put(variables)
        logit_scale = bundle.params.get("logit_scale", 0.0)  # absent without an image tower
        with np.errstate(over="ignore"):
            self.similarity_scale = float(np.exp(np.float32(logit_scale)))
        if not np.isfinite(self.similarity_scale):
            raise JclipError(
                f"logit_scale is {float(logit_scale):g}; its exponential is not finite: use an earlier checkpoint"
            )
        self._encoder = Encoder(
            bundle.config, bundle.tokenizer, bundle.preprocessing, bundle.context_length, batch_size
        )

    @property
    def params(self) -> dict[str, Any]:
        """Nested parameters on the device."""
        params: dict[str, Any] = self.variables["params"]
        return params

    @cached_property
    def identity(self) -> str:
        """Hex digest of the bundle's contents: parameters, configuration, tokenizer and preprocessing.

        Equal contents have the same one in any folder, and before and after `save`. It is computed on first use, and
        remembered in the cache for an unchanged folder.
        """
        if self._origin is None:
            return self.bundle.digest()
        folder, stamp = self._origin
        known = recall(_IDENTITY, folder, stamp)
        if known is None:
            known = self.bundle.digest()
            remember(_IDENTITY, folder, stamp, known)
        return known

    @property
    def embed_dim(self) -> int:
        """Number of dimensions of the features."""
        return self.bundle.config.embed_dim

    @property
    def name(self) -> str:
        """Short name for people, from the bundle's provenance: "OFA-Sys/chinese-clip-vit-base-patch16"."""
        provenance = self.bundle.provenance
        if "run" in provenance:
            name = "/".join(str(provenance[part]) for part in ("run", "stage") if part in provenance)
        elif "converted_from" in provenance:
            source = str(provenance["converted_from"])
            name = source.removeprefix("hf://") if source.startswith("hf://") else Path(source).name
        else:
            towers = self.bundle.config.towers.values()
            name = " + ".join(type(tower).__name__.removesuffix("Config") for tower in towers)
        return shown(name, 80)

    @property
    def apply(self) -> Callable[..., Any]:
        """Pure function of the model: `apply(variables, images, method="encode_image")`, or ids and "encode_text".

        Arguments are as in `DualEncoder`. Features are not L2-normalised.
        """
        return build_model(self.bundle.config).apply

    def encode_image(
        self, pictures: Sequence[Picture] | np.ndarray, *, orientation: Orientation | None = None
    ) -> np.ndarray:
        """Encodes PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3) as (n, d) float32, L2-normalised.

        `orientation` is "apply" to rotate images by their EXIF orientation, or "ignore"; None for the bundle's setting,
        which is "ignore" for CLIP and Chinese-CLIP. Raises JclipError if an item, which the message names, is not an
        image or cannot be read; the bundle has no image tower; or features are not finite.
        """
        return self._finite(self._encoder.images(self.variables, pictures, orientation), "image")

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes strings as (n, d) float32, L2-normalised.

        Longer texts are truncated to the bundle's `context_length` tokens and keep their end token. Raises JclipError
        if an item, which the message names, is not a string or has an unpaired surrogate; or features are not finite.
        """
        return self._finite(self._encoder.texts(self.variables, sentences), "text")

    def similarity(
        self,
        pictures: Sequence[Picture] | np.ndarray,
        sentences: Sequence[str],
        *,
        orientation: Orientation | None = None,
    ) -> np.ndarray:
        """Computes the logits, (images, texts): cosine similarities times `similarity_scale`."""
        images_nd = self.encode_image(pictures, orientation=orientation)
        return self.similarity_scale * images_nd @ self.encode_text(sentences).T

    def _finite(self, features_nd: np.ndarray, what: str) -> np.ndarray:
        """Returns the features; raises JclipError if they are not finite, because a ranking would hide NaN."""
        broken = np.flatnonzero(~np.isfinite(features_nd).all(axis=1))
        if not len(broken):
            return features_nd
        found = f"{len(broken)} of {len(features_nd)} {what} features are not finite, the first at {what} {broken[0]}"
        leaves = rules.paths_of(self.variables)
        culprit = next((path for path, leaf in leaves.items() if not jnp.isfinite(leaf).all()), None)
        if culprit is None:
            raise JclipError(f"{found}: the parameters are finite, but too large; use an earlier checkpoint")
        raise JclipError(
            f"{found}: the model's {culprit.partition('/')[2]} holds NaN or infinity, so it has diverged or is "
            "damaged; use an earlier checkpoint"
        )


def load(folder: str | Path) -> Model:
    """Loads the model in a bundle folder.

        model = jclip.load("bundles/chinese-clip")
        model.similarity(["cat.jpg"], ["一只猫", "一只狗"])

    A process that has loaded a model must not fork: jax runs threads, and the child may hang. `multiprocessing` forks
    by default on Linux before Python 3.14: use `multiprocessing.get_context("spawn")`. A model can be pickled.

    Raises:
      JclipError: the folder is not a bundle, or is damaged.
    """
    origin = Origin(Path(folder), bundle_stamp(Path(folder)))
    return Model(load_bundle(folder), origin=origin)


def save(model: Model | Bundle, folder: str | Path) -> None:
    """Writes a model or a bundle to a folder, from which `load` reads it.

    An older bundle in the same folder is replaced only when the new one is complete. Raises JclipError if the parts do
    not fit together, the folder cannot be written, or the disk is full.
    """
    save_bundle(model.bundle if isinstance(model, Model) else model, Path(folder))


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
def _image_encoder(config: ModelConfig, preprocessing: Preprocessing) -> Callable[..., Any]:
    """Returns the jitted function of variables and uint8 images (b, h, w, 3) -> L2-normalised features (b, d)."""
    model = build_model(config)

    @jax.jit
    def encode(variables: dict[str, Any], images_bhwc: jax.Array) -> jax.Array:
        images_bhwc = normalise(preprocessing, images_bhwc.astype(jnp.float32))
        image_bd: Any = model.apply(variables, images_bhwc, method="encode_image")
        return _replicated(l2_normalised(image_bd))

    return encode


@lru_cache(maxsize=8)
def _text_encoder(config: ModelConfig) -> Callable[..., Any]:
    """Returns the jitted function of variables and token ids (b, l) -> L2-normalised features (b, d)."""
    model = build_model(config)

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
