"""Description of one kind of checkpoint."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jclip.conversion.hf.config import HfModel
from jclip.conversion.parity.references import Builder
from jclip.conversion.towers.resizing import Interpolation
from jclip.conversion.towers.rows import MappingTable
from jclip.conversion.towers.sizes import Sizes
from jclip.errors import JclipError
from jclip.models.build import ModelConfig
from jclip.models.transformer import Activation
from jclip.names import TokenizerKind
from jclip.plain import shown

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a checkpoint's tensors by key."""

POSITION_IDS = (r"(.*\.)?position_ids", "the buffer 0, 1, 2 … that old versions of transformers saved")
UNUSED = (POSITION_IDS, (r"(.*\.)?pooler\..*", "a pooler that the model never uses"))
VIT_LAYERS = (r"(vision_model\.encoder)\.layer\.", r"\1.layers.")
"""Entry of `Family.spellings`: when transformers 5 saves an AltCLIP, it renames the layers of both towers."""
TRANSFORMERS_UNSAID = "without a config.json: heads of 64 channels (80 in ViT-H/14), and the family's usual epsilons"
COUNTERS = (r".*\.num_batches_tracked", "a counter that batch norm with a fixed momentum never uses")


@dataclass
class Hints:
    """Facts about a model that its tensors do not contain.

    Attributes:
      config: contents of config.json or open_clip_config.json; empty if there is none.
      activation: activation of CLIP's transformers that the user gave; None if not given.
      pooling: pooling of a sentence encoder, from its folder; None means the first token.
      assumed: one line for each assumption that a family had to make. They go into the passport.
      config_name: configuration file for messages.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    activation: Activation | None = None
    pooling: Literal["cls", "mean"] | None = None
    assumed: list[str] = field(default_factory=list)
    config_name: str = "its configuration"

    def part(self, name: str) -> Mapping[str, Any]:
        """Returns a part of the configuration such as "vision_config"; empty without it.

        Raises JclipError if the part is not an object.
        """
        part = self.config.get(name)
        if part is not None and not isinstance(part, Mapping):
            raise JclipError(
                f"{self.config_name}: {name} is {shown(repr(part))}, but must be an object: fetch it again"
            )
        return part or {}

    def activation_or(self, default: Activation, part: str) -> Activation:
        """Returns the activation from a part of the configuration, else the user's, else `default` as an assumption."""
        said = self.part(part).get("hidden_act", self.activation)
        if said is None:
            self.assumed.append(f"activation of {part}: {default}")
            return default
        return said  # the tower's configuration refuses unknown ones

    def fixed_activation(self, fixed: Activation, where: str) -> Activation:
        """Returns `fixed`, the activation of a family or configuration. Raises JclipError if the user gave another."""
        if self.activation not in (None, fixed):
            raise JclipError(f"{where} has {fixed}, not {self.activation}: omit --activation")
        return fixed


@dataclass(frozen=True)
class Start:
    """Starting point of a family's recipe: the image tower of a CLIP with a text encoder, see `compose`.

    Attributes:
      encoder: format of the text encoder, see `jclip.conversion.towers`.
      kept: paths of the CLIP's parameters that are copied beside those of its image tower.
      new: returns the initialisation of each new parameter by path, given the width of the text encoder.
      teacher: format of the CLIP's text tower, whose width a new head gets; "" for no head and any text tower.
      resizes: True if the result preprocesses images as the family's published models do; False if as the CLIP does.
    """

    encoder: str
    kept: tuple[str, ...]
    new: Callable[[int], Mapping[str, dict[str, Any]]]
    teacher: str = ""
    resizes: bool = False


@dataclass(frozen=True)
class Family:
    """Kind of checkpoint: its signature, its mapping table, and its defaults.

    `accepts` and `contradiction` tell families with the same keys apart. They take the shapes, the contents of
    config.json, and True for a TorchScript archive.

    Attributes:
      name: name for --family.
      title: name for messages.
      signature: keys that tell this family from the others.
      table: returns the mapping table of a checkpoint with the given keys.
      config: returns the model's configuration, given the sizes, the keys and the hints.
      reference: builds the PyTorch model with which a conversion is compared.
      dropped: (regex, reason) of keys that are expected and not used. Any other key is an error.
      spellings: (regex, replacement) that turn other spellings of the keys into the table's, applied in order.
      tokenizer: kind of the text tower's vocabulary and of its rules for splitting text.
      vocabulary: package that ships the vocabulary, and its file in the package, for checkpoints without one.
      context_length: maximum number of tokens of a text in training; None for the number of positions.
      resize: resizing of images, as in `Preprocessing`.
      interpolation: library whose interpolation brings position embeddings to another image size.
      unsaid: assumption that the passport records if there is no config.json; "" if the family's own code fixes all.
      accepts: returns True if files with the signature are of this family.
      contradiction: returns what in the files contradicts the user's --family; "" if nothing does.
      text_only: True for text encoders without an image tower.
      hf: model of transformers for `--to hf`; None if it has none.
      start: starting point of the family's recipe; None if jclip has no recipe.
    """

    name: str
    title: str
    signature: tuple[str, ...]
    table: Callable[[Collection[str]], MappingTable]
    config: Callable[[Sizes, Collection[str], Hints], ModelConfig]
    reference: Builder
    dropped: tuple[tuple[str, str], ...]
    tokenizer: TokenizerKind
    context_length: int | None
    vocabulary: tuple[str, str] | None = None
    spellings: tuple[tuple[str, str], ...] = ()
    resize: Literal["squash", "crop"] = "crop"
    interpolation: Interpolation = "hf"
    unsaid: str = ""
    accepts: Callable[[Shapes, Mapping[str, Any], bool], bool] = lambda shapes, config, torchscript: True
    contradiction: Callable[[Shapes, Mapping[str, Any], bool], str] = lambda shapes, config, torchscript: ""
    text_only: bool = False
    hf: HfModel | None = None
    start: Start | None = None
