"""Sharding rules of whole models, from the tables of their towers."""

from jax.sharding import Mesh

from jclip.axes import TENSOR
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.parallel.sharding import Rules
from jclip.rules import inside


def rules_for(model: DualEncoderConfig, mesh: Mesh) -> Rules:
    """Returns the sharding rules of a whole model."""
    return (*tower_rules(model, "image", mesh), *tower_rules(model, "text", mesh), (r"logit_.*", "copy"))


def tower_rules(model: DualEncoderConfig, tower: str, mesh: Mesh) -> Rules:
    """Returns the sharding rules of the tower "image" or "text"."""
    table = model.towers[tower].sharding(mesh.shape[TENSOR])
    if tower == "text" and model.head_width is not None:
        table = (*model.text.head_sharding, *table)
    return inside(tower, table)
