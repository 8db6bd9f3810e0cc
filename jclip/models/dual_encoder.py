"""Two towers into one space: CLIP, Chinese-CLIP and AltCLIP.

Axes: b batch, h height, w width, c colours, l tokens, s width of the text state, e embedding.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from jclip.errors import JclipError
from jclip.models.attention import Implementation
from jclip.models.bert import Bert, BertConfig
from jclip.models.clip_text import ClipText, ClipTextConfig
from jclip.models.remat import Remat
from jclip.models.resnet import ResNet, ResNetConfig
from jclip.models.spread import by_example
from jclip.models.vit import Vit, VitConfig
from jclip.ranges import Range, Size, check_ranges


@dataclass(frozen=True)
class DualEncoderConfig:
    """An image tower and a text tower.

    Attributes:
      image: a ViT or a ResNet.
      text: a BERT (Chinese-CLIP, AltCLIP) or CLIP's own.
      embed_dim: of the joint space.
      head_width: of AltCLIP's head on a BERT, which imitates the teacher's state and so has its width; None for none.
      logit_scale_init: logarithm of the inverse temperature at the start (Radford et al. 2021, section 2.5).
      logit_bias_init: of the sigmoid loss (Zhai et al. 2023, section 3.2: -10, with a temperature of 10); None for a
        model without the parameter "logit_bias".
    """

    image: VitConfig | ResNetConfig
    text: BertConfig | ClipTextConfig
    embed_dim: Size
    head_width: Size | None = None
    logit_scale_init: Annotated[float, Range(-80, 80)] = math.log(1 / 0.07)
    logit_bias_init: Annotated[float, Range(-1e4, 1e4)] | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.head_width is not None and isinstance(self.text, ClipTextConfig):
            raise JclipError("head_width is for a BERT: CLIP's own text tower has no head, leave it out")


class DualEncoder(nn.Module):
    """The model.

    Parameters are under "image/", "text/" and "logit_scale", and "logit_bias" if the configuration has one; both
    projections are bias-free matrices, but a ResNet's pooling ends in its own. A text method needs only what is under
    "text/", an image method under "image/".

    Attributes:
      config: the towers.
      dtype: of the computation; parameters, norms and softmax are float32.
      remat: what of a layer the backward pass computes again.
      attention: what computes a transformer's, see `jclip.models.attention.attend`.
      frozen_layers: so many of a transformer's first layers, (image, text), stand in a stack of their own under
        "image/first_layers/" and "text/first_layers/", [n, ...], and "layers/" holds the others. What is computed is
        the same; a stage that freezes the first stack has no backward pass through it.
      patch_dropout: share of an image's patches that are left out in training (Li et al. 2022, FLIP).
    """

    config: DualEncoderConfig
    dtype: Dtype = jnp.float32
    remat: Remat = "none"
    attention: Implementation = "auto"
    frozen_layers: tuple[int, int] = (0, 0)
    patch_dropout: float = 0.0

    def setup(self) -> None:
        """The two towers.

        Raises:
          JclipError: `frozen_layers` or `patch_dropout` that the towers cannot have.
        """
        config, (image_first, text_first) = self.config, self.frozen_layers
        how: dict[str, Any] = {"dtype": self.dtype, "remat": self.remat}
        transformer = {**how, "attention": self.attention}
        if isinstance(config.image, VitConfig):
            vit = {**transformer, "first": image_first, "patch_dropout": self.patch_dropout}
            self.image: Vit | ResNet = Vit(config.image, config.embed_dim, **vit)
        elif image_first or self.patch_dropout:
            name = "frozen_layers" if image_first else "patch_dropout"
            raise JclipError(f"{name} is for a vision transformer, and the image tower is a ResNet: set it to 0")
        else:
            self.image = ResNet(config.image, config.embed_dim, **how)
        transformer["first"] = text_first
        if isinstance(config.text, BertConfig):
            self.text: Bert | ClipText = Bert(config.text, config.embed_dim, config.head_width, **transformer)
        else:
            self.text = ClipText(config.text, config.embed_dim, **transformer)

    def encode_image(
        self, images_bhwc: jax.Array, *, train: bool = False, rows_b: jax.Array | None = None
    ) -> jax.Array:
        """Embeddings of images, (b, e), not L2-normalised.

        Args:
          images_bhwc: float, normalised as the model's preprocessing says.
          train: makes a ResNet use and move its batch statistics ("batch_stats" must be mutable).
          rows_b: integers that tell the examples apart, (b,): which patches are left out depends on the "dropout" key
            and on them alone. None: all stay.
        """
        return by_example(self.image(images_bhwc, train, rows_b))

    def text_state(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """What the text projection is applied to, (b, s): the target and the output of teacher learning.

        CLIP: end-of-text after the final norm. AltCLIP: the head's output at the first token. Chinese-CLIP: [CLS].

        Args:
          ids_bl: token ids; padding is known by its id, and follows the text.
          rows_b: integers that tell the examples apart, (b,): what BERT's dropout drops depends on the "dropout" key
            and on them alone. None: nothing is dropped.
        """
        return by_example(self.text.state(ids_bl, rows_b))

    def encode_text(self, ids_bl: jax.Array, *, rows_b: jax.Array | None = None) -> jax.Array:
        """Embeddings of texts, (b, e), not L2-normalised; arguments as in `text_state`."""
        return by_example(self.text(ids_bl, rows_b))

    @nn.compact
    def __call__(
        self, images_bhwc: jax.Array, ids_bl: jax.Array, *, train: bool = False, rows_b: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Image embeddings (b, e), text embeddings (b, e), and the logarithm of the logit scale, a float32 scalar."""
        # Here rather than in setup, so that a teacher can be its text tower's parameters alone.
        logit_scale = self.param("logit_scale", nn.initializers.constant(self.config.logit_scale_init), ())
        if self.config.logit_bias_init is not None:  # made here, and read by the loss alone
            self.param("logit_bias", nn.initializers.constant(self.config.logit_bias_init), ())
        image_be = self.encode_image(images_bhwc, train=train, rows_b=rows_b)
        return image_be, self.encode_text(ids_bl, rows_b=rows_b), logit_scale
