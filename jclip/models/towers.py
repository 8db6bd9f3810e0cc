"""Interfaces of the towers' configurations.

A new tower is a frozen dataclass that inherits `ImageTower` or `TextTower` and is registered under its class's name:

    @kind_of(ImageTower)
    @dataclass(frozen=True)
    class MixerConfig(ImageTower):
        image_size: int
        ...

Training, sharding, bundles and the command line then accept it. A file names the class under "type". CONTRIBUTING.md
says how a command finds the class.

A tower calls `jclip.models.by_example` on its activations after each product with a matrix that `sharding` splits over
two axes. Without it, XLA computes wrong gradients on a mesh whose three axes all have several devices.
"""

import abc
from typing import ClassVar, Self

import flax.linen as nn

from jclip.models.compute import Compute
from jclip.models.placements import EMBEDDINGS, ENDS, LAYERS, Placements, with_whole_heads
from jclip.names import TokenizerKind

LayerNumbers = tuple[tuple[str, int], ...]
"""Ordered (path regex, layer number), for the paths inside a tower that are not in its stack of layers.

0 is before the first layer, and n is the n-th layer. The largest number is that of heads and projections, which learn
at the full rate under layer-wise decay."""


class Tower:
    """Base class of all towers. The defaults suit a tower without a stack of layers."""

    @property
    def conversion(self) -> str:
        """Name of its format in `jclip.conversion.towers`; empty for a tower that cannot be converted."""
        return ""

    @property
    def depth(self) -> int:
        """Number of layers in the stack "layers/", whose parameters have a leading axis of layers; 0 for no stack."""
        return 0

    @property
    def separable(self) -> bool:
        """True if the stack's layers may be separate (`jclip.models.separate`) when one token's state is asked for."""
        return False

    def is_stacked(self, path: str) -> bool:
        """Returns whether a parameter, such as "layers/mlp/fc1/kernel", has a leading axis of `depth` layers."""
        return self.depth > 0 and path.startswith("layers/")

    @property
    def layer_numbers(self) -> LayerNumbers:
        """Layer numbers of the parameters outside the stack; empty if the tower has no layer-wise decay."""
        return ()

    def sharding(self, tensor: int) -> Placements:
        """Returns the placements of the parameters on a mesh whose "tensor" axis has `tensor` devices."""
        del tensor
        return ((r".*", "fsdp"),)


class ImageTower(Tower, abc.ABC):
    """Configuration of an image tower.

    Attributes:
      image_size: side of the square images, pixels.
      has_statistics: True if batch norm has running statistics ("batch_stats") and needs the whole batch at once.
    """

    image_size: int
    has_statistics: ClassVar[bool] = False

    @abc.abstractmethod
    def build(
        self, embed_dim: int, compute: Compute, *, frozen_layers: int = 0, patch_dropout: float = 0.0
    ) -> nn.Module:
        """Returns the module: (images_bhwc, train, rows_b) to embeddings (b, embed_dim), not L2-normalised.

        Args:
          embed_dim: width of the joint space.
          compute: precision and implementation.
          frozen_layers: number of first layers whose parameters are in "first_layers/" instead of "layers/", so that a
            stage can freeze them. 0 unless the tower has a `depth`.
          patch_dropout: share of the patches that training drops. 0 unless the tower has `patches`.
        """

    @abc.abstractmethod
    def reduced(self, image_size: int) -> Self:
        """Returns a tower of this kind that trains on a laptop, for `--reduced`."""

    @property
    def patches(self) -> int:
        """Number of patches of an image, for patch dropout; 0 if the tower does not support it."""
        return 0

    @property
    def tokens(self) -> int:
        """Number of tokens of an image that pass through the parameters. For estimates only."""
        return 1

    @property
    def activation_bytes(self) -> int:
        """Bytes of an image's activations for the backward pass, in 16 bits. For estimates only."""
        return 4 * 2 * 3 * self.image_size**2


class TextTower(Tower, abc.ABC):
    """Configuration of a text tower.

    Attributes:
      vocab_size: rows of the token embedding.
      width: width of a text's state before heads and projections.
      pad_id: id of the padding; None if the tower accepts any.
      takes_head: True if the tower can have AltCLIP's head.
      head_sharding: placements of the head's parameters that differ from `sharding`.
    """

    vocab_size: int
    width: int
    pad_id: int | None
    takes_head: ClassVar[bool] = False
    head_sharding: ClassVar[Placements] = ()

    @property
    @abc.abstractmethod
    def longest(self) -> int:
        """Maximum number of tokens of a text."""

    @abc.abstractmethod
    def build(
        self, embed_dim: int, compute: Compute, *, head_width: int | None = None, frozen_layers: int = 0
    ) -> nn.Module:
        """Returns the module: (ids_bl, rows_b) to embeddings (b, embed_dim), not L2-normalised.

        Its method `state(ids_bl, rows_b)` returns the input of the projection, which teacher learning compares.
        `head_width` is the width of the states after a head, whose parameters are under "head/"; None unless the tower
        `takes_head`. The other arguments are as in `ImageTower.build`.
        """

    @abc.abstractmethod
    def reduced(self, vocab_size: int, context_length: int) -> Self:
        """Returns a tower of this kind that trains on a laptop, for `--reduced`."""

    @property
    def tokenizer(self) -> TokenizerKind:
        """Kind of tokenizer that `--reduced` makes for the tower."""
        return "wordpiece"

    def activation_bytes(self, tokens: int) -> int:
        """Returns the bytes of a text's activations for the backward pass, in 16 bits. For estimates only."""
        return 4 * 2 * tokens * self.width


class StackedTower(Tower):
    """Base class of towers whose transformer layers are one stack, "layers/"."""

    width: int
    layers: int
    heads: int

    @property
    def depth(self) -> int:
        """See `Tower`."""
        return self.layers

    def sharding(self, tensor: int) -> Placements:
        """See `Tower`."""
        return with_whole_heads((*LAYERS, *EMBEDDINGS, *ENDS), self.heads, tensor)


REDUCED_WIDTH = 64
"""Width of a reduced model's embeddings, states and heads."""


def transformer_bytes(tokens: int, width: int, heads: int, layers: int) -> int:
    """Returns the bytes of one example's activations in a transformer, for the backward pass, in 16 bits.

    Korthikanti et al. 2022, equation 2: tokens x width x (34 + 5 x heads x tokens / width) in each layer.

    >>> transformer_bytes(197, 768, 12, 12)
    89671248
    """
    return layers * tokens * (34 * width + 5 * heads * tokens)
