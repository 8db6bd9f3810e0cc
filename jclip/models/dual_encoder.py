"""Two towers into one space: CLIP, Chinese-CLIP and AltCLIP.

Axes: b batch, h height, w width, c colours, l tokens, s width of the text state, e embedding.
"""

import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.bert import Bert, BertConfig
from jclip.models.clip_text import ClipText, ClipTextConfig
from jclip.models.resnet import ResNet, ResNetConfig
from jclip.models.vit import Vit, VitConfig


@dataclass(frozen=True)
class DualEncoderConfig:
    """An image tower and a text tower.

    Attributes:
      image: a ViT or a ResNet.
      text: a BERT (Chinese-CLIP, AltCLIP) or CLIP's own.
      embed_dim: of the joint space.
      head_width: of AltCLIP's head on a BERT, which imitates the teacher's state and so has its width; None for none.
      logit_scale_init: logarithm of the inverse temperature at the start (Radford et al. 2021, section 2.5).
    """

    image: VitConfig | ResNetConfig
    text: BertConfig | ClipTextConfig
    embed_dim: int
    head_width: int | None = None
    logit_scale_init: float = math.log(1 / 0.07)

    def __post_init__(self) -> None:
        if self.head_width is not None and isinstance(self.text, ClipTextConfig):
            raise JclipError("head_width is for a BERT: CLIP's own text tower has no head, leave it out")


class DualEncoder(nn.Module):
    """The model.

    Parameters are under "image/", "text/" and "logit_scale"; both projections are bias-free matrices, but a ResNet's
    pooling ends in its own. A text method needs only what is under "text/", an image method under "image/".

    Attributes:
      config: the towers.
      dtype: of the computation; parameters, norms and softmax are float32.
      remat: whether the backward pass computes layers again instead of keeping their insides.
    """

    config: DualEncoderConfig
    dtype: Dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        """The two towers."""
        config = self.config
        if isinstance(config.image, VitConfig):
            self.image: Vit | ResNet = Vit(config.image, config.embed_dim, self.dtype, self.remat)
        else:
            self.image = ResNet(config.image, config.embed_dim, self.dtype, self.remat)
        if isinstance(config.text, BertConfig):
            self.text: Bert | ClipText = Bert(config.text, config.embed_dim, config.head_width, self.dtype, self.remat)
        else:
            self.text = ClipText(config.text, config.embed_dim, self.dtype, self.remat)

    def encode_image(self, images_bhwc: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings of images, (b, e), not L2-normalised.

        Args:
          images_bhwc: float, normalised as the model's preprocessing says.
          train: makes a ResNet use and move its batch statistics ("batch_stats" must be mutable).
        """
        return self.image(images_bhwc, train)

    def text_state(self, ids_bl: jax.Array, *, train: bool = False) -> jax.Array:
        """What the text projection is applied to, (b, s): the target and the output of teacher learning.

        CLIP: end-of-text after the final norm. AltCLIP: the head's output at the first token. Chinese-CLIP: [CLS].

        Args:
          ids_bl: token ids; padding is known by its id.
          train: turns BERT's dropout on, which draws from the "dropout" key.
        """
        return self.text.state(ids_bl, train)

    def encode_text(self, ids_bl: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings of texts, (b, e), not L2-normalised; arguments as in `text_state`."""
        return self.text(ids_bl, train)

    @nn.compact
    def __call__(
        self, images_bhwc: jax.Array, ids_bl: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Image embeddings (b, e), text embeddings (b, e), and the logarithm of the logit scale, a float32 scalar."""
        # Here rather than in setup, so that a teacher can be its text tower's parameters alone.
        logit_scale = self.param("logit_scale", nn.initializers.constant(self.config.logit_scale_init), ())
        return self.encode_image(images_bhwc, train=train), self.encode_text(ids_bl, train=train), logit_scale
