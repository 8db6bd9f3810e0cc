"""Sizes of a model from the shapes of its tensors, checked against its configuration file.

The shapes determine every size. Heads, activations, epsilons and dropout come from config.json or the family's
defaults. Sizes in config.json must agree with the shapes: a config.json of another model is an error here, with a
clearer message than the reference library's.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from jclip.conversion.towers.rows import MappingRow, MappingTable
from jclip.errors import JclipError
from jclip.models.transformer import ACTIVATIONS, Activation

HEAD_WIDTH = 64
"""Channels of an attention head in every published tower except ViT-H/14."""


class Sizes:
    """Shapes of a checkpoint's tensors under our paths.

    Args:
      table: the family's mapping table.
      theirs: shapes by key.
      where: the checkpoint, for messages.
      config_name: the configuration file, for messages.
    """

    def __init__(self, table: MappingTable, theirs: Mapping[str, tuple[int, ...]], where: str, config_name: str):
        self._rows: dict[str, MappingRow] = {row.ours: row for row in table}
        self._theirs, self.where, self.config_name = theirs, where, config_name

    def shape(self, path: str, axes: int) -> tuple[int, ...]:
        """Returns the shape of a parameter, of one layer if layers are stacked.

        Raises JclipError if it is missing, empty, or does not have `axes` axes.
        """
        row = self._rows[path]
        key = row.theirs.replace("{i}", "0")
        if key not in self._theirs:
            raise JclipError(f"{self.where}: {key} is missing: the file is incomplete, or of another family")
        shape = row.our_shape(self._theirs[key])
        if len(shape) != axes or 0 in shape:
            raise JclipError(
                f"{self.where}: {key} has shape {self._theirs[key]}, but must have {axes} non-empty axes: the file is "
                "damaged, or of another family"
            )
        return shape

    def layers(self, path: str) -> int:
        """Returns the number of layers of a stacked parameter."""
        return count(self._theirs, re.escape(self._rows[path].theirs).replace(re.escape("{i}"), "([0-9]{1,3})"))

    def grid(self, path: str) -> int:
        """Returns the side of the square grid of a position embedding, whose first row is not part of the grid."""
        places = self.shape(path, 2)[0] - 1
        side = math.isqrt(max(places, 0))
        if side < 1 or side * side != places:
            raise JclipError(f"{self.where}: {places + 1} positions are not a square and one more: fetch it again")
        return side


def count(keys: Collection[str], pattern: str) -> int:
    """Returns 1 + the largest number that the group of `pattern` matches among the keys; 0 if no key matches."""
    return 1 + max((int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))), default=-1)


def heads_for(width: int) -> int:
    """Returns the number of heads of 64 channels, the default of every family."""
    return max(1, width // HEAD_WIDTH)


def agree(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Raises JclipError if a configuration, `said`, has other values than the tensors. Messages begin with `where`."""
    for field, value in found.items():
        told = said.get(field)
        if told is not None and told != value:
            raise JclipError(
                f"{where}{field} is {told!r}, but the tensors say {value}: use the configuration that belongs to these "
                "weights"
            )


_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size"),
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
)


def agree_in_sizes(said: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Checks the sizes in a configuration of transformers, see `agree`; other fields of `found` are ignored."""
    agree(said, {field: value for field, value in found.items() if field in _SIZES}, where)


def check_only(said: Mapping[str, Any], field: str, value: Any, where: str) -> None:
    """Raises JclipError if a configuration sets a field to another value than the only one that jclip supports."""
    told = said.get(field)
    near = isinstance(value, float) and isinstance(told, float | int) and math.isclose(told, value)
    if told is not None and told != value and not near:
        raise JclipError(f"{where}{field} is {told!r}, but jclip supports only {value!r}: convert another model")


def activation_of(said: Mapping[str, Any], default: Activation, where: str) -> Activation:
    """Returns the activation in a configuration's "hidden_act"; raises JclipError if jclip has no such activation."""
    name = said.get("hidden_act", default)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        supported = " and ".join(ACTIVATIONS)
        raise JclipError(f"{where}hidden_act is {name!r}, but jclip supports {supported}: convert another model")
    return name


def heads_of(said: Mapping[str, Any], field: str, width: int, default: int, where: str) -> int:
    """Returns the number of heads that a configuration gives; raises JclipError if it does not divide the width."""
    heads = said.get(field, default)
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1 or width % heads:
        raise JclipError(f"{where}{field} is {heads!r}, which does not divide a width of {width}: correct it")
    return heads


def fraction_of(said: Mapping[str, Any], field: str, default: float, where: str) -> float:
    """Returns a number that a configuration gives; raises JclipError unless it is in [0, 1)."""
    value = said.get(field, default)
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0 <= value < 1:
        raise JclipError(f"{where}{field} is {value!r}, but must be a number >= 0 and < 1: correct it")
    return float(value)
