"""How a stage holds the model's parameters: what trains, which stacks of layers are cut in two, what is rounded."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jclip import rules
from jclip.errors import JclipError
from jclip.optimizer import is_stacked as is_stacked
from jclip.stages import Stage, trainable_paths

TOWERS = ("image", "text")
_LAYERS, _FIRST = "layers", "first_layers"
_NEVER_ROUNDED = re.compile(r"(.*/)?(bias|scale|logit_.*)")


@dataclass(frozen=True)
class Layout:
    """How a stage holds the model's parameters.

    Where only the last layers of a tower train, its stacked leaves are held in two: "image/layers/..." are those that
    train, [l, ...], and "image/first_layers/..." those below, [n, ...]. The gradient of a slice would be computed
    through the whole stack.

    Of what is kept in bfloat16 the last digits are gone for good, so that no later stage may train it; scales, biases
    and the logit scale are small, and are never rounded.

    Attributes:
      trains: the paths that train, as they are held.
      first: how many layers of the (image, text) tower are held apart.
      rounded: the paths that are kept in bfloat16, as they are held.
    """

    trains: frozenset[str]
    first: tuple[int, int] = (0, 0)
    rounded: frozenset[str] = frozenset()

    def frozen_layers(self, path: str, leaf: Any) -> int:
        """How many layers of a parameter of the whole model are frozen; of one that is not stacked, 0 or 1."""
        if path not in self.trains:
            return int(leaf.shape[0]) if is_stacked(path) else 1
        return self.first[TOWERS.index(path.partition("/")[0])] if is_stacked(path) else 0

    def rounded_layers(self, path: str, leaf: Any) -> int:
        """How many of them are kept in bfloat16."""
        kept = path in self.rounded or path.replace(f"/{_LAYERS}/", f"/{_FIRST}/", 1) in self.rounded
        return self.frozen_layers(path, leaf) if kept else 0

    def held(self, params: dict[str, Any]) -> dict[str, Any]:
        """Nested parameters with stacks cut, each in its dtype; what is whole and has it already is not copied."""
        for tower, count in zip(TOWERS, self.first, strict=True):
            if count:
                stack = params[tower][_LAYERS]
                parts = {
                    _FIRST: jax.tree.map(lambda leaf, count=count: leaf[:count], stack),
                    _LAYERS: jax.tree.map(lambda leaf, count=count: leaf[count:], stack),
                }
                params = {**params, tower: {**params[tower], **parts}}
        leaves = rules.paths_of(params)
        return rules.tree_from_paths(
            {path: leaf.astype(jnp.bfloat16 if path in self.rounded else jnp.float32) for path, leaf in leaves.items()}
        )


def layout(stage: Stage, leaves: Mapping[str, Any]) -> Layout:
    """How a stage holds the parameters.

    Args:
      stage: with its rules.
      leaves: {path: array or shape} of the whole model.

    Raises:
      JclipError: a misspelt rule (it matches nothing), a parameter without a rule, a stage that trains nothing, or
        `last_layers` that the towers or `trains` do not have.
    """
    trains = trainable_paths(stage, leaves)
    firsts = dict(_first_layers(stage, leaves, trains))
    cut = {f"{tower}/{_LAYERS}/": f"{tower}/{_FIRST}/" for tower, count in firsts.items() if count}
    frozen = {path for path in leaves if path not in trains}
    for stack, below in cut.items():
        frozen |= {path.replace(stack, below, 1) for path in leaves if path.startswith(stack)}
    rounded = frozen if stage.frozen_dtype == "bfloat16" else set()
    return Layout(
        trains=trains,
        first=(firsts.get("image", 0), firsts.get("text", 0)),
        rounded=frozenset(path for path in rounded if not _NEVER_ROUNDED.fullmatch(path)),
    )


def joined(params: dict[str, Any]) -> dict[str, Any]:
    """Nested parameters with every stack in one piece again, as the model is known outside of its stages."""
    for tower in TOWERS:
        if _FIRST in params.get(tower, {}):
            parts = dict(params[tower])
            parts[_LAYERS] = jax.tree.map(
                lambda first, last: jnp.concatenate([first, last]), parts.pop(_FIRST), parts[_LAYERS]
            )
            params = {**params, tower: parts}
    return params


def whole_path(path: str) -> str:
    """The name in the whole model of a parameter, or of its part, that a stage holds."""
    return path.replace(f"/{_FIRST}/", f"/{_LAYERS}/", 1)


def check_rounding(stages: Iterable[Stage], leaves: Mapping[str, Any]) -> None:
    """Holds what each stage keeps in bfloat16 against what the later ones do with it.

    Raises:
      JclipError: a later stage trains it, or would keep what is left of it in float32; both stages are named.
    """
    rounded: dict[str, tuple[int, str]] = {}  # path -> how many of its layers are rounded (1 of 1 if not stacked)
    for stage in stages:
        held = layout(stage, leaves)
        for path, (count, before) in rounded.items():
            if count > held.rounded_layers(path, leaves[path]):
                trained = path in held.trains and count > held.frozen_layers(path, leaves[path])
                raise JclipError(
                    f"stage {before!r} keeps {path} in bfloat16, but stage {stage.name!r} "
                    f"{'trains it' if trained else 'keeps it in float32'}: set frozen_dtype to float32 in {before!r}"
                    f"{'' if trained else f', or to bfloat16 in {stage.name!r}'}"
                )
        for path, leaf in leaves.items():
            if count := held.rounded_layers(path, leaf):
                rounded[path] = max(rounded.get(path, (0, "")), (count, stage.name))


def _first_layers(stage: Stage, leaves: Mapping[str, Any], trains: frozenset[str]) -> Iterable[tuple[str, int]]:
    """(tower, how many of its layers are frozen below those that train)."""
    seen = set()
    for tower, last in stage.last_layers:
        where = f"stage {stage.name!r}: last_layers"
        if tower not in TOWERS or tower in seen:
            raise JclipError(f"{where} names {tower!r}{' twice' if tower in seen else ''}: name image, text, or both")
        seen.add(tower)
        stack = f"{tower}/{_LAYERS}/"
        depth = next((leaf.shape[0] for path, leaf in leaves.items() if path.startswith(stack)), None)
        if depth is None:
            raise JclipError(
                f"{where}: the {tower} tower has no stack of layers: name the parameters that train in `trains`"
            )
        if not 1 <= last <= depth:
            raise JclipError(
                f"{where}: the {tower} tower has {depth} layers, of which {last} cannot be: give 1 to {depth}"
            )
        if not any(path.startswith(stack) for path in trains):
            raise JclipError(
                f"{where} is for the {tower} tower, of whose layers `trains` freezes all: let it train them"
            )
        yield tower, depth - last
