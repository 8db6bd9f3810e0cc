"""Two towers with a joint space: CLIP, Chinese-CLIP and AltCLIP.

Axes: b batch, h height, w width, c colours, l tokens, s width of the text state, e embedding.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import flax.linen as nn
import jax

from jclip.errors import JclipError
from jclip.models import bert, clip_text, resnet, vit  # noqa: F401  # registers their towers
from jclip.models.compute import Compute
from jclip.models.spread import by_example
from jclip.models.towers import REDUCED_WIDTH, ImageTower, TextTower, Tower
from jclip.ranges import Range, Size, check_ranges


@dataclass(frozen=True)
class DualEncoderConfig:
    """Image tower and text tower.

    Attributes:
      image: a ViT, a ResNet, or another registered `ImageTower`.
      text: a BERT (Chinese-CLIP, AltCLIP), CLIP's own, or another registered `TextTower`.
      embed_dim: width of the joint space.
      head_width: width of AltCLIP's head, equal to the width of the teacher's state; None for no head.
      logit_scale_init: initial logarithm of the inverse temperature (Radford et al. 2021, section 2.5).
      logit_bias_init: initial bias of the sigmoid loss; None for a model without the parameter "logit_bias". Zhai et
        al. 2023 (section 3.2) choose -10, with ln 10 as logit_scale_init.
    """

    image: ImageTower
    text: TextTower
    embed_dim: Size
    head_width: Size | None = None
    logit_scale_init: Annotated[float, Range(-80, 80)] = math.log(1 / 0.07)
    logit_bias_init: Annotated[float, Range(-1e4, 1e4)] | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.head_width is not None and not self.text.takes_head:
            raise JclipError(f"head_width: a {type(self.text).__name__} has no head: omit it, or choose a BERT")

    @property
    def towers(self) -> dict[str, Tower]:
        """The towers by the names of their parameters."""
        return {"image": self.image, "text": self.text}

    @property
    def has_statistics(self) -> bool:
        """True if the model has batch statistics."""
        return self.image.has_statistics

    def reduced(self, image_size: int, vocab_size: int, context_length: int) -> "DualEncoderConfig":
        """Returns a model with the same kinds of towers that trains on a laptop."""
        return replace(
            self,
            image=self.image.reduced(image_size),
            text=self.text.reduced(vocab_size, context_length),
            embed_dim=REDUCED_WIDTH,
            head_width=None if self.head_width is None else REDUCED_WIDTH,
        )


class DualEncoder(nn.Module):
    """Model of a `DualEncoderConfig`.

    Parameters are "image/", "text/", "logit_scale", and "logit_bias" if the configuration has one. `encode_image` needs
    only those under "image/"; `encode_text` and `text_state` need only those under "text/".

    Attributes:
      frozen_layers: number of first layers of the (image, text) tower whose parameters are in "first_layers/" instead
        of "layers/". The results are the same. A stage that freezes the first stack has no backward pass through it.
      patch_dropout: share of an image's patches that training drops (Li et al. 2022, FLIP).
    """

    config: DualEncoderConfig
    compute: Compute = Compute()
    frozen_layers: tuple[int, int] = (0, 0)
    patch_dropout: float = 0.0

    def setup(self) -> None:
        """Builds the two towers. Raises JclipError if a tower does not support `frozen_layers` or `patch_dropout`."""
        config = self.config
        for (name, tower), frozen in zip(config.towers.items(), self.frozen_layers, strict=True):
            if frozen and not tower.depth:
                raise JclipError(
                    f"frozen_layers: a {type(tower).__name__} has no stack of layers ({name} tower): set it to 0"
                )
        if self.patch_dropout and not config.image.patches:
            raise JclipError(f"patch_dropout: a {type(config.image).__name__} does not support it: set it to 0")
        image_frozen, text_frozen = self.frozen_layers
        self.image = config.image.build(
            config.embed_dim, self.compute, frozen_layers=image_frozen, patch_dropout=self.patch_dropout
        )
        self.text = config.text.build(
            config.embed_dim, self.compute, head_width=config.head_width, frozen_layers=text_frozen
        )

    def encode_image(
        self, images_bhwc: jax.Array, *, train: bool = False, rows_b: jax.Array | None = None
    ) -> jax.Array:
        """Returns the embeddings of images, (b, e), not L2-normalised.

        Args:
          images_bhwc: float, normalised by the model's preprocessing.
          train: if true, a ResNet normalises with the batch's statistics and updates "batch_stats", which must be
            mutable.
          rows_b: distinct integers of the examples, (b,). Patch dropout depends only on them and on the "dropout" key.
            None for no dropout.
        """
        return by_example(self.image(images_bhwc, train, rows_b))

    def text_state(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the input of the text projection, (b, s), which teacher learning compares.

        CLIP: end-of-text after the final norm. AltCLIP: the head's output at the first token. Chinese-CLIP: [CLS].

        In `ids_bl` padding follows the text. `rows_b` are distinct integers of the examples, (b,). Dropout depends only
        on them and on the "dropout" key. None for no dropout.
        """
        return by_example(self.text.state(ids_bl, rows_b))

    def encode_text(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """Returns the embeddings of texts, (b, e), not L2-normalised; arguments as in `text_state`."""
        return by_example(self.text(ids_bl, rows_b))

    @nn.compact
    def __call__(
        self, images_bhwc: jax.Array, ids_bl: jax.Array, *, train: bool = False, rows_b: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns image embeddings (b, e), text embeddings (b, e), and the logarithm logit_scale, float32 ()."""
        # Declared here, not in setup, so that a teacher needs only its text tower's parameters.
        logit_scale = self.param("logit_scale", nn.initializers.constant(self.config.logit_scale_init), ())
        if self.config.logit_bias_init is not None:  # only the loss reads it
            self.param("logit_bias", nn.initializers.constant(self.config.logit_bias_init), ())
        image_be = self.encode_image(images_bhwc, train=train, rows_b=rows_b)
        return image_be, self.encode_text(ids_bl, rows_b=rows_b), logit_scale
