"""Features from a model: pictures and sentences in, L2-normalised float32 vectors out, batched and jitted inside."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jclip.bundle import Bundle, load_bundle
from jclip.data.images import Preprocessing, normalise, to_array
from jclip.data.text import Tokenizer
from jclip.models.dual_encoder import DualEncoder, DualEncoderConfig

Picture = Image.Image | np.ndarray | str | Path | bytes


class Encoder:
    """A model's two towers with the preprocessing and the tokenizer they were trained with.

    The variables are an argument of each call's inner function, so that one encoder serves a whole training run.
    """

    def __init__(
        self,
        config: DualEncoderConfig,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        context_length: int,
        batch_size: int = 256,
    ):
        self._model = DualEncoder(config)
        self._tokenizer, self._preprocessing = tokenizer, preprocessing
        self._context_length, self._batch_size = context_length, batch_size

    def images(self, variables: dict[str, Any], pictures: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """(n, d) float32, L2-normalised.

        Args:
          variables: of the model.
          pictures: PIL images, paths, encoded bytes, or uint8 arrays (h, w, 3).

        Raises:
          JclipError: a picture that cannot be read; it is named.
        """
        arrays = [to_array(self._preprocessing, picture) for picture in pictures]
        return self._in_batches(self._image_fn, variables, np.stack(arrays) if arrays else np.zeros((0, 1, 1, 3)))

    def texts(self, variables: dict[str, Any], sentences: Sequence[str]) -> np.ndarray:
        """(n, d) float32, L2-normalised; sentences beyond the context length are cut, their last token kept."""
        ids = self._tokenizer(list(sentences), self._context_length)
        return self._in_batches(self._text_fn, variables, ids)

    @cached_property
    def _image_fn(self) -> Any:
        @jax.jit
        def encode(variables: dict[str, Any], images_bhwc: jax.Array) -> jax.Array:
            images_bhwc = normalise(self._preprocessing, images_bhwc.astype(jnp.float32))
            return _unit(self._model.apply(variables, images_bhwc, method="encode_image"))

        return encode

    @cached_property
    def _text_fn(self) -> Any:
        @jax.jit
        def encode(variables: dict[str, Any], ids_bl: jax.Array) -> jax.Array:
            return _unit(self._model.apply(variables, ids_bl, method="encode_text"))

        return encode

    def _in_batches(self, function: Any, variables: dict[str, Any], inputs: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(inputs), self._batch_size):
            batch = inputs[start : start + self._batch_size]
            # The last batch is filled up by repeating its first row, so that one shape is compiled.
            filled = np.concatenate([batch, np.repeat(batch[:1], self._batch_size - len(batch), axis=0)])
            parts.append(np.asarray(function(variables, filled))[: len(batch)])
        return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


class Model:
    """A bundle, ready to use: `jclip.load(folder)`.

    Attributes:
      bundle: the folder's contents: config, params, tokenizer, preprocessing, provenance.
      logit_scale: the factor on cosine similarities, exp of the trained parameter.
    """

    def __init__(self, bundle: Bundle, batch_size: int = 256):
        self.bundle = bundle
        self.variables = {"params": bundle.params, **({"batch_stats": bundle.stats} if bundle.stats else {})}
        self.logit_scale = float(np.exp(bundle.params["logit_scale"]))
        self._encoder = Encoder(
            bundle.config, bundle.tokenizer, bundle.preprocessing, bundle.context_length, batch_size
        )
        self.encode_image = partial(self._encoder.images, self.variables)
        self.encode_text = partial(self._encoder.texts, self.variables)

    def similarity(self, pictures: Sequence[Picture], sentences: Sequence[str]) -> np.ndarray:
        """(pictures, sentences) logits: cosines times `logit_scale`."""
        return self.logit_scale * self.encode_image(pictures) @ self.encode_text(sentences).T


def load(folder: str | Path) -> Model:
    """The model in a bundle folder.

    Raises:
      JclipError: the folder is no bundle, or damaged.
    """
    return Model(load_bundle(folder))


def _unit(x_bd: Any) -> jax.Array:
    x_bd = x_bd.astype(jnp.float32)
    return x_bd / jnp.linalg.norm(x_bd, axis=-1, keepdims=True)
