"""Models that encode images and texts as L2-normalised float32 vectors, batched and jitted."""

import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jclip import rules
from jclip.bundle import Bundle, Origin, check_parts, load_bundle, open_bundle, save_bundle
from jclip.encoding import Encoder
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture
from jclip.io.tensors import Lazy
from jclip.models.build import build_model, variables_of
from jclip.models.compute import Compute
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.separate import separated
from jclip.names import ModelDtype, TowerName
from jclip.plain import shown

_COMMIT = re.compile(r"@[0-9a-f]{40}$")


class Model:
    """Model that is ready to use: `jclip.load(source)`.

    It can be pickled. It must not be used after a fork: see `jclip.load`.

    Args:
      bundle: contents of the model.
      batch_size: number of images or texts encoded at once.
      tower: "image" or "text" for a model of one tower; None for all.
      dtype: dtype of the towers' parameters and computation. Features are float32.
      origin: origin of the bundle, if it was read from a folder: its identity is then computed once.

    Attributes:
      bundle: config, params, tokenizer, preprocessing, provenance. Parameters that are not in `variables`, or have
        another dtype there, may be `Lazy`: read from the bundle's folder on access.
      tower: name of the only tower, or None.
      variables: parameters and batch statistics on the device: the first argument of `apply`.
      similarity_scale: factor on cosine similarities: exp(logit_scale); 1 for a model without an image tower.
      source: path or address from which `jclip.load` loads it again; empty for a model made in memory.

    Raises:
      JclipError: tokenizer, preprocessing or context length do not fit the towers; the bundle has no such tower; the
        dtype is unknown; or the scale is not finite.
    """

    source = ""

    def __init__(
        self,
        bundle: Bundle,
        batch_size: int = 256,
        *,
        tower: TowerName | None = None,
        dtype: ModelDtype = "float32",
        origin: Origin | None = None,
    ):
        check_parts(bundle)
        towers = bundle.config.towers
        if tower not in (None, *towers):
            raise JclipError(f"tower is {tower!r}, but this bundle has {' and '.join(towers)}: give one, or None")
        if dtype not in get_args(ModelDtype):
            raise JclipError(f"dtype is {dtype!r}, but must be {' or '.join(get_args(ModelDtype))}: give another")
        self.bundle, self.tower, self._origin = bundle, tower, origin
        params, stats = (
            {name: leaves for name, leaves in tree.items() if name not in towers or tower in (None, name)}
            for tree in (bundle.params, bundle.stats)
        )
        params = {
            name: _placed(leaves, getattr(jnp, dtype) if name in towers else jnp.float32)
            for name, leaves in params.items()
        }
        self.variables: dict[str, Any] = variables_of(params, _placed(stats, jnp.float32))
        logit_scale = float(params.get("logit_scale", 0.0))  # absent without an image tower
        with np.errstate(over="ignore"):
            self.similarity_scale = float(np.exp(np.float32(logit_scale)))
        if not np.isfinite(self.similarity_scale):
            raise JclipError(
                f"logit_scale is {logit_scale:g}; its exponential is not finite: use an earlier checkpoint"
            )
        self._compute = Compute(getattr(jnp, dtype))
        self._encoder = Encoder(
            bundle.config, bundle.tokenizer, bundle.preprocessing, bundle.context_length, batch_size, self._compute
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
        return self.bundle.digest() if self._origin is None else self._origin.identity(self.bundle.digest)

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
            name = _COMMIT.sub("", source.removeprefix("hf://")) if source.startswith("hf://") else Path(source).name
        else:
            towers = self.bundle.config.towers.values()
            name = " + ".join(type(tower).__name__.removesuffix("Config") for tower in towers)
        return shown(name, 80)

    @property
    def apply(self) -> Callable[..., Any]:
        """Pure function of the model: `apply(variables, images, method="encode_image")`, or ids and "encode_text".

        Arguments are as in `DualEncoder`. Features are not L2-normalised.
        """
        return build_model(self.bundle.config, self._compute).apply

    def changed(self, *, context_length: int | None = None, orientation: Orientation | None = None) -> Self:
        """Returns this model with another maximum number of tokens, or another orientation of images.

        Parameters are shared; None keeps a setting. Raises JclipError if the text tower lacks positions for the tokens.
        """
        bundle = self.bundle
        if orientation is not None and bundle.preprocessing is not None:
            bundle = replace(bundle, preprocessing=replace(bundle.preprocessing, orientation=orientation))
        if context_length is not None:
            bundle = replace(bundle, context_length=context_length)
        check_parts(bundle)
        model = copy(self)
        model.bundle, model._origin, model.source = bundle, None, ""
        model.__dict__.pop("identity", None)
        model._encoder = self._encoder.changed(bundle.preprocessing, bundle.context_length)
        return model

    def encode_image(
        self, pictures: Sequence[Picture] | np.ndarray, *, orientation: Orientation | None = None
    ) -> np.ndarray:
        """Encodes PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3) as (n, d) float32, L2-normalised.

        `orientation` is "apply" to rotate images by their EXIF orientation, or "ignore"; None for the bundle's setting,
        which is "ignore" for CLIP and Chinese-CLIP. Raises JclipError if an item, which the message names, is not an
        image or cannot be read; the image tower is missing or not loaded; or features are not finite.
        """
        self._check_loaded("image")
        return self._finite(self._encoder.images(self._arguments, pictures, orientation), "image")

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes strings as (n, d) float32, L2-normalised.

        Longer texts are truncated to the bundle's `context_length` tokens and keep their end token. Raises JclipError
        if an item, which the message names, is not a string or has an unpaired surrogate; the text tower is not loaded;
        or features are not finite.
        """
        self._check_loaded("text")
        return self._finite(self._encoder.texts(self._arguments, sentences), "text")

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

    @property
    def _arguments(self) -> dict[str, Any]:
        """Variables for the encoder: with separate layers on a CPU, unless a text encoder pools all tokens."""
        leaves = jax.tree.leaves(self.variables)  # none in an ONNX export
        on_cpu = leaves and all(device.platform == "cpu" for device in leaves[0].devices())
        scans = not jax.sharding.get_mesh().empty or not isinstance(self.bundle.config, DualEncoderConfig)
        return self._separated if on_cpu and not scans else self.variables

    @cached_property
    def _separated(self) -> dict[str, Any]:
        return {**self.variables, "params": separated(self.params, self.bundle.config.towers)}

    def __getstate__(self) -> dict[str, Any]:
        """Returns what pickle stores: not the views of the parameters."""
        return {name: value for name, value in self.__dict__.items() if name != "_separated"}

    def _check_loaded(self, tower: TowerName) -> None:
        if self.tower not in (None, tower):
            raise JclipError(
                f"this model was loaded with its {self.tower} tower alone, which cannot encode {tower}s: load it "
                f'with tower="{tower}", or with both'
            )

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


def load_model(
    folder: str | Path, *, tower: TowerName | None = None, dtype: ModelDtype = "float32", batch_size: int = 256
) -> Model:
    """Loads the model in a bundle's folder: see `jclip.load`, which takes other sources too.

    Raises JclipError if the folder is not a bundle or is damaged, or it has no such tower.
    """
    origin = Origin.of(Path(folder))
    # All of a float32 model is in memory, independent of the folder. Otherwise each tensor is read into its place on
    # the device, one at a time, and the other tower is not read.
    whole = tower is None and dtype == "float32"
    bundle = load_bundle(folder) if whole else open_bundle(folder)
    return Model(bundle, batch_size, tower=tower, dtype=dtype, origin=origin)


def save(model: Model | Bundle, folder: str | Path) -> None:
    """Writes a model or a bundle to a folder, from which `load` reads it.

    An older bundle in the same folder is replaced only when the new one is complete. Raises JclipError if the parts do
    not fit together, the folder cannot be written, or the disk is full.
    """
    bundle = model.bundle if isinstance(model, Model) else model
    if not bundle.params:
        raise JclipError("an export has no parameters, so it cannot be saved as a bundle: save its source")
    save_bundle(bundle, Path(folder))


def _placed(leaves: Any, dtype: Any) -> Any:
    """Returns a tree of arrays, some of them `Lazy`, on the device in a dtype; reads one after another."""

    def place(leaf: Any) -> jax.Array:
        value = leaf.read() if isinstance(leaf, Lazy) else leaf
        value = value if isinstance(value, jax.Array) else np.asarray(value)
        return jax.device_put(value.astype(dtype, copy=False))

    return jax.tree.map(place, leaves)
