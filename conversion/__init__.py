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

Only the comparison with the original model, and `export` for cn_clip, need torch.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.conversion.composing import compose as compose
    from jclip.conversion.converting import convert as convert
    from jclip.conversion.exporting import export as export
    from jclip.conversion.importing import CheckpointOptions as CheckpointOptions
    from jclip.conversion.verifying import verify as verify

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
