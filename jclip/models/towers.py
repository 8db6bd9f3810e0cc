"""Interface of the towers' configurations: everything that the rest of jclip asks of a tower.

A new tower is a frozen dataclass that inherits `ImageTower` or `TextTower` and is registered under its class's name:

    @kind_of(ImageTower)
    @dataclass(frozen=True)
    class MixerConfig(ImageTower):
        image_size: int
        ...

Training, sharding, bundles and the command line then accept it; no file of jclip needs a change. A file names the class
under "type" and never imports it: the program that reads the file must have imported the module of the class.
"""

import abc
from typing import ClassVar, Literal, Self

import flax.linen as nn

from jclip.models.compute import Compute
from jclip.models.placements import Placements

LayerNumbers = tuple[tuple[str, int], ...]
"""Ordered (path regex, layer number), over the paths inside a tower that are not in its stack of layers.

0 comes before the first layer and n is the n-th layer. The largest number is that of heads and projections, which
learn at the full rate under layer-wise decay."""


TokenizerKind = Literal["wordpiece", "bert", "xlmr", "clip_bpe"]


class Tower:
    """Answers of both towers. The defaults here suit a tower without a stack of layers.

    Attributes:
      conversion: name under which `jclip.conversion` knows the tower's parameters; empty if it does not.
    """

    conversion: ClassVar[str] = ""

    @property
    def depth(self) -> int:
        """Number of layers in the stack "layers/", whose parameters have a leading axis of layers; 0 for no stack."""
        return 0

    @property
    def layer_numbers(self) -> LayerNumbers:
        """Layers of the parameters outside the stack; empty if the tower does not support layer-wise decay."""
        return ()

    def sharding(self, tensor: int) -> Placements:
        """Returns how parameters are split on a mesh whose "tensor" axis has `tensor` devices."""
        del tensor
        return ((r".*", "fsdp"),)


class ImageTower(Tower, abc.ABC):
    """Configuration of an image tower.

    Attributes:
      image_size: side of the square images, pixels.
      has_statistics: whether batch norm keeps running statistics ("batch_stats") and needs the whole batch at once.
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
          frozen_layers: the first layers, as many as this, have their parameters in "first_layers/" and the others in
            "layers/", so that a stage can freeze them. 0 unless the tower has a `depth`.
          patch_dropout: share of the patches that training leaves out. 0 unless the tower has `patches`.
        """

    @abc.abstractmethod
    def reduced(self, image_size: int) -> Self:
        """Returns a tower of this kind that trains on a laptop, for `--reduced`."""

    @property
    def patches(self) -> int:
        """Number of patches among which patch dropout chooses; 0 if the tower does not support it."""
        return 0

    @property
    def tokens(self) -> int:
        """Number of tokens of an image: each costs a product with every parameter. Used for estimates only."""
        return 1

    @property
    def activation_bytes(self) -> int:
        """Bytes that one image leaves for the backward pass in 16 bits. Used for estimates only."""
        return 4 * 2 * 3 * self.image_size**2


class TextTower(Tower, abc.ABC):
    """Configuration of a text tower.

    Attributes:
      vocab_size: rows of the token embedding.
      width: width of a text's state before heads and projections.
      pad_id: id of the padding; None if any id will do.
      takes_head: whether the tower can have AltCLIP's head.
    """

    vocab_size: int
    width: int
    pad_id: int | None
    takes_head: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def longest(self) -> int:
        """Number of tokens of the longest text."""

    @abc.abstractmethod
    def build(
        self, embed_dim: int, compute: Compute, *, head_width: int | None = None, frozen_layers: int = 0
    ) -> nn.Module:
        """Returns the module: (ids_bl, rows_b) to embeddings (b, embed_dim), not L2-normalised.

        Its method `state(ids_bl, rows_b)` returns what the projection is applied to, the target of teacher learning.

        Args:
          embed_dim: width of the joint space.
          compute: precision and implementation.
          head_width: width of the states after a head, under "head/"; None unless the tower `takes_head`.
          frozen_layers: as in `ImageTower.build`.
        """

    @abc.abstractmethod
    def reduced(self, vocab_size: int, context_length: int) -> Self:
        """Returns a tower of this kind that trains on a laptop, for `--reduced`."""

    @property
    def tokenizer(self) -> TokenizerKind:
        """Kind of tokenizer that `--reduced` makes for the tower, see `jclip.tokenizers`."""
        return "wordpiece"

    def activation_bytes(self, tokens: int) -> int:
        """Returns the bytes that a text of `tokens` leaves for the backward pass in 16 bits. For estimates only."""
        return 4 * 2 * tokens * self.width


REDUCED_WIDTH = 64
"""Width of a reduced model's embeddings, states and heads."""


def transformer_bytes(tokens: int, width: int, heads: int, layers: int) -> int:
    """Returns the bytes that a transformer keeps of one example for its backward pass, computing in 16 bits.

    Korthikanti et al. 2022, equation 2: tokens x width x (34 + 5 x heads x tokens / width) in each layer.

    >>> transformer_bytes(197, 768, 12, 12)
    89671248
    """
    return layers * tokens * (34 * width + 5 * heads * tokens)
