"""The configuration of a model from the shapes of its tensors, and from what its config.json says beside them.

Shapes tell every size. What they cannot tell (heads, activations, epsilons, dropout) comes from config.json or from the
family's own rules. Where the two speak of the same thing they must agree: with the wrong config.json the reference
libraries build another model and complain of the weights.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from jclip.conversion.rows import Row, Table
from jclip.errors import JclipError
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.resnet import ResNetConfig
from jclip.models.transformer import ACTIVATIONS, CLIP_EPS, Activation
from jclip.models.vit import VitConfig

HEAD_WIDTH = 64
"""Channels of a head in every published tower but one."""
_VIT_HEAD_WIDTHS = {1280: 80}  # ViT-H/14
_OF_EVERY_BERT = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}


class Sizes:
    """The shapes of a checkpoint's tensors under our names.

    Args:
      table: of the family.
      theirs: key -> shape.
      where: the checkpoint, for messages.
      said_in: its configuration's file, for messages.
    """

    def __init__(self, table: Table, theirs: Mapping[str, tuple[int, ...]], where: str, said_in: str):
        self._rows: dict[str, Row] = {row.ours: row for row in table}
        self._theirs, self.where, self.said_in = theirs, where, said_in

    def shape(self, path: str, axes: int) -> tuple[int, ...]:
        """The shape of a parameter, of one layer where layers are stacked.

        Raises:
          JclipError: it is missing or empty, or has another number of axes.
        """
        row = self._rows[path]
        key = row.theirs.replace("{i}", "0")
        if key not in self._theirs:
            raise JclipError(f"{self.where}: {key} is missing: the file is not whole, or of another family")
        shape = row.our_shape(self._theirs[key])
        if len(shape) != axes or 0 in shape:
            raise JclipError(
                f"{self.where}: {key} has shape {self._theirs[key]}, but must have {axes} axes, none empty: the file "
                "is damaged, or of another family"
            )
        return shape

    def layers(self, path: str) -> int:
        """How many layers a stacked parameter has."""
        return count(self._theirs, re.escape(self._rows[path].theirs).replace(re.escape("{i}"), "([0-9]{1,3})"))


def count(keys: Collection[str], pattern: str) -> int:
    """1 + the largest number that the one group of `pattern` takes on among the keys; 0 when none matches."""
    return 1 + max((int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))), default=-1)


def heads_for(width: int) -> int:
    """Heads of a transformer of this width, where nobody says: of 64 channels each."""
    return max(1, width // HEAD_WIDTH)


def vit_heads_for(width: int) -> int:
    """Heads of a ViT of this width, where nobody says: of 64 channels each, but for ViT-H/14's 80."""
    return max(1, width // _VIT_HEAD_WIDTHS.get(width, HEAD_WIDTH))


def vit_config(sizes: Sizes, said: Mapping[str, Any], activation: Activation) -> VitConfig:
    """An image tower.

    Args:
      sizes: of the tensors.
      said: a vision_config in Hugging Face's words, empty where there is none.
      activation: where `said` names none.
    """
    width = sizes.shape("image/class_embedding", 1)[0]
    patch = sizes.shape("image/patch/kernel", 4)[0]
    hidden = sizes.shape("image/layers/mlp/fc1/kernel", 2)[1]
    if width < 1 or hidden % width:
        raise JclipError(
            f"{sizes.where}: perceptrons {hidden} wide on states {width} wide are not of a ViT that we know: convert "
            "another model"
        )
    found = {
        "hidden_size": width,
        "patch_size": patch,
        "image_size": patch * _grid(sizes, "image/position_embedding"),
        "intermediate_size": hidden,
        "num_hidden_layers": sizes.layers("image/layers/mlp/fc1/kernel"),
    }
    where = f"{sizes.said_in}: vision_config."
    agree(said, found, where)
    _only(said, "layer_norm_eps", CLIP_EPS, where)
    return VitConfig(
        image_size=found["image_size"],
        patch_size=patch,
        width=width,
        layers=found["num_hidden_layers"],
        heads=heads_that_divide(
            width, said.get("num_attention_heads", vit_heads_for(width)), f"{where}num_attention_heads"
        ),
        mlp_ratio=hidden // width,
        activation=activation_named(said.get("hidden_act", activation), f"{where}hidden_act"),
    )


def resnet_config(sizes: Sizes, blocks: tuple[int, ...]) -> ResNetConfig:
    """An image tower with so many blocks a stage; its heads are 64 wide, as OpenAI's are."""
    width = sizes.shape("image/stem/conv_3/kernel", 4)[3]
    grid = _grid(sizes, "image/attention_pool/position_embedding")
    return ResNetConfig(32 * grid, cast(Any, blocks), width, heads=max(1, 32 * width // HEAD_WIDTH))


def bert_config(sizes: Sizes, said: Mapping[str, Any], like: BertConfig, part: str = "text_config.") -> BertConfig:
    """A text tower.

    Args:
      sizes: of the tensors.
      said: a text_config in Hugging Face's words, empty where there is none.
      like: where positions begin, the padding, the epsilon and the dropout where `said` names none.
      part: where in its configuration `said` stands, for messages.
    """
    vocab_size, width = sizes.shape("text/word_embedding", 2)
    found = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": sizes.shape("text/layers/mlp/fc1/kernel", 2)[1],
        "num_hidden_layers": sizes.layers("text/layers/mlp/fc1/kernel"),
        "max_position_embeddings": sizes.shape("text/position_embedding", 2)[0],
        "type_vocab_size": sizes.shape("text/token_type_embedding", 2)[0],
    }
    where = f"{sizes.said_in}: {part}"
    agree(said, found, where)
    for field, value in _OF_EVERY_BERT.items():
        _only(said, field, value, where)
    _only(said, "pad_token_id", like.pad_id, where)
    dropout = _fraction(said, "hidden_dropout_prob", like.dropout, where)
    attention_dropout = _fraction(said, "attention_probs_dropout_prob", dropout, where)
    return BertConfig(
        vocab_size=vocab_size,
        width=width,
        layers=found["num_hidden_layers"],
        heads=heads_that_divide(
            width, said.get("num_attention_heads", heads_for(width)), f"{where}num_attention_heads"
        ),
        intermediate=found["intermediate_size"],
        max_positions=found["max_position_embeddings"],
        type_vocab_size=found["type_vocab_size"],
        pad_id=like.pad_id,
        layer_norm_eps=_fraction(said, "layer_norm_eps", like.layer_norm_eps, where),
        dropout=dropout,
        attention_dropout=None if attention_dropout == dropout else attention_dropout,
        position_offset=like.position_offset,
    )


def clip_text_config(sizes: Sizes, said: Mapping[str, Any], activation: Activation) -> ClipTextConfig:
    """CLIP's text tower; arguments as for `vit_config`."""
    vocab_size, width = sizes.shape("text/token_embedding", 2)
    hidden = sizes.shape("text/layers/mlp/fc1/kernel", 2)[1]
    if hidden != 4 * width:
        raise JclipError(
            f"{sizes.where}: text perceptrons {hidden} wide, not 4 times {width}: not CLIP's text tower, convert "
            "another model"
        )
    found = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": sizes.layers("text/layers/mlp/fc1/kernel"),
        "max_position_embeddings": sizes.shape("text/position_embedding", 2)[0],
    }
    where = f"{sizes.said_in}: text_config."
    agree(said, found, where)
    _only(said, "layer_norm_eps", CLIP_EPS, where)
    return ClipTextConfig(
        vocab_size=vocab_size,
        context_length=found["max_position_embeddings"],
        width=width,
        layers=found["num_hidden_layers"],
        heads=heads_that_divide(
            width, said.get("num_attention_heads", heads_for(width)), f"{where}num_attention_heads"
        ),
        activation=activation_named(said.get("hidden_act", activation), f"{where}hidden_act"),
    )


def activation_named(name: Any, where: str) -> Activation:
    """An activation that the towers have.

    Raises:
      JclipError: they do not.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise JclipError(f"{where} is {name!r}, but only {' and '.join(ACTIVATIONS)} are supported: convert another")
    return name


def heads_that_divide(width: int, heads: Any, what: str) -> int:
    """Heads as a configuration has them.

    Args:
      width: of the states.
      heads: what it says.
      what: its file and field.

    Raises:
      JclipError: no transformer of this width can have them.
    """
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise JclipError(f"{what} is {heads!r}, which does not divide a width of {width}: mend it")
    return heads


def agree(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Holds what a configuration says against what the tensors say.

    Args:
      said: the configuration, or a part of it.
      found: {field: value}, from the tensors.
      where: its file, and the part of it.

    Raises:
      JclipError: they differ; the field is named.
    """
    for field, value in found.items():
        told = said.get(field)
        if told is not None and told != value:
            raise JclipError(
                f"{where}{field} is {told!r}, but the tensors say {value}: it is another model's, take the one that "
                "belongs to these weights"
            )


def _grid(sizes: Sizes, path: str) -> int:
    """The side of the square of places for which there are positions, the first of them apart."""
    places = sizes.shape(path, 2)[0] - 1
    side = math.isqrt(max(places, 0))
    if side < 1 or side * side != places:
        raise JclipError(f"{sizes.where}: {places + 1} positions are not a square and one more: fetch it again")
    return side


def _only(said: Mapping[str, Any], field: str, value: Any, where: str) -> None:
    """Refuses what our towers lack."""
    told = said.get(field)
    near = isinstance(value, float) and isinstance(told, float | int) and math.isclose(told, value)
    if told is not None and told != value and not near:
        raise JclipError(f"{where}{field} is {told!r}, but only {value!r} is supported: convert another model")


def _fraction(said: Mapping[str, Any], field: str, default: float, where: str) -> float:
    value = said.get(field, default)
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < 1:
        raise JclipError(f"{where}{field} is {value!r}, but must be a number from 0 up to 1: mend it")
    return float(value)
