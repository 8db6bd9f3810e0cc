"""What there is to know of one kind of checkpoint."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jclip.conversion.rows import Table
from jclip.conversion.sizes import Sizes
from jclip.errors import JclipError
from jclip.io.tensors import shown
from jclip.models.build import ModelConfig
from jclip.models.transformer import Activation
from jclip.tokenizers.vocabulary import TokenizerKind

Interpolation = Literal["hf", "cn_clip", "open_clip"]

POSITION_IDS = (r"(.*\.)?position_ids", "0, 1, 2 … as a buffer: old versions of transformers saved it")
POOLER = (r"(.*\.)?pooler\..*", "a pooler that the model never uses")
VIT_LAYERS = (r"(vision_model\.encoder)\.layer\.", r"\1.layers.")
"""transformers 5 renames the text tower's layers when it saves an AltCLIP, and the image tower's with them."""
TRANSFORMERS_UNSAID = "without a config.json: heads of 64 channels (80 in ViT-H/14), and the family's usual epsilons"
COUNTERS = (r".*\.num_batches_tracked", "a counter that batch norm with a fixed momentum never uses")


@dataclass
class Hints:
    """What is said of a model outside its tensors.

    Attributes:
      config: config.json, or open_clip_config.json; empty where there is none.
      activation: of CLIP's transformers, where the user said it.
      pooling: of a sentence encoder, where its folder says it; None is the first token.
      assumed: one line for each thing that nobody said and a family took for granted; they go into the passport.
      said_in: the configuration's file, for messages.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    activation: Activation | None = None
    pooling: Literal["cls", "mean"] | None = None
    assumed: list[str] = field(default_factory=list)
    said_in: str = "its configuration"

    def part(self, name: str) -> Mapping[str, Any]:
        """A sub-configuration, "vision_config"; empty where there is none.

        Raises:
          JclipError: something else has its name.
        """
        part = self.config.get(name)
        if part is not None and not isinstance(part, Mapping):
            raise JclipError(f"{self.said_in}: {name} is {shown(repr(part))}, but must hold fields: fetch it again")
        return part or {}

    def activation_or(self, default: Activation, part: str) -> Activation:
        """The activation that a sub-configuration, the user or else the family names."""
        said = self.part(part).get("hidden_act", self.activation)
        if said is None:
            self.assumed.append(f"activation of {part}: {default}")
            return default
        return said  # what is no activation is refused where it is used

    def activation_said(self, told: Activation | None, where: str) -> Activation:
        """The activation that a family's code or a configuration fixes, or else the user names.

        Raises:
          JclipError: the user names another than is fixed.
        """
        if self.activation and told and self.activation != told:
            raise JclipError(f"{where} has {told}, not {self.activation}: leave --activation away")
        said = told or self.activation
        assert said, "who fixes none asks the user first"
        return said


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint: how to tell it, its mapping table, and what it leaves open.

    Attributes:
      name: for --family.
      title: for people.
      signature: keys that together tell this family from the others.
      table: the mapping table for a checkpoint with these keys.
      config: the model's configuration.
      dropped: (regex, reason): keys that are expected and not used. Any other key is an error.
      spellings: (regex, replacement): other names under which the same keys are found, applied in order.
      tokenizer: kind of the text tower's vocabulary, and with it by whose rules BERT's cuts a text.
      vocabulary: a package that ships it, and the file in there; for checkpoints that come without one.
      context_length: tokens that the model was trained with, or None for as many as it has positions.
      resize: how its pictures are brought to size.
      interpolation: how its position embeddings are brought to another image size.
      unsaid: what its checkpoints leave to their config.json, and is assumed where that is missing; "" where the code
        of its makers fixes it all.
    """

    name: str
    title: str
    signature: tuple[str, ...]
    table: Callable[[Collection[str]], Table]
    config: Callable[[Sizes, Collection[str], Hints], ModelConfig]
    dropped: tuple[tuple[str, str], ...]
    tokenizer: TokenizerKind
    context_length: int | None
    vocabulary: tuple[str, str] | None = None
    spellings: tuple[tuple[str, str], ...] = ()
    resize: Literal["squash", "crop"] = "crop"
    interpolation: Interpolation = "hf"
    unsaid: str = ""
