"""Converts PyTorch checkpoints to bundles and back.

A converted bundle has a passport, the file passport.json. It records the origin of the weights and the comparison with
the original model.

    from jclip.conversion import convert, verify

    convert("hf://BAAI/AltCLIP", Path("altclip"))       # writes a bundle with a passport
    verify(Path("altclip"), ["hf://BAAI/AltCLIP"])      # repeats the passport's checks

Names:
  convert: converts a checkpoint to a bundle.
  verify: repeats the checks of a bundle's passport.
  compose: builds the starting point of a recipe from two checkpoints.
  export: writes a bundle for transformers or cn_clip.
  CheckpointOptions: facts about a checkpoint that its files do not contain.
  Family, register_family: a kind of checkpoint, and its registration by another package.
  TowerFormat, register_format: a kind of tower in the formats of PyTorch libraries, and its registration.

Only the comparison with the original model, and `export` for cn_clip, need torch.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.conversion.composing import compose as compose
    from jclip.conversion.converting import convert as convert
    from jclip.conversion.exporting import export as export
    from jclip.conversion.families import register_family as register_family
    from jclip.conversion.families.family import Family as Family
    from jclip.conversion.importing import CheckpointOptions as CheckpointOptions
    from jclip.conversion.towers import register_format as register_format
    from jclip.conversion.towers.tower import TowerFormat as TowerFormat
    from jclip.conversion.verifying import verify as verify

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
