"""Conversion: PyTorch and safetensors checkpoints to bundles, and bundles back.

Names:
  convert_checkpoint: writes a checkpoint as a bundle, with a passport; `jclip convert SRC DST`.
  compose: writes the starting bundle of a recipe from an image tower and a text tower.
  export_bundle: writes a bundle for transformers or cn_clip.
  verify: repeats the checks of a bundle's passport.
  ImportOptions: facts that a checkpoint does not contain, for `convert_checkpoint`.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.conversion.convert import compose as compose
    from jclip.conversion.convert import convert as convert_checkpoint
    from jclip.conversion.export import export as export_bundle
    from jclip.conversion.importing import Options as ImportOptions
    from jclip.conversion.parity.verify import verify as verify

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "convert_checkpoint": "jclip.conversion.convert:convert",
        "compose": "jclip.conversion.convert:compose",
        "export_bundle": "jclip.conversion.export:export",
        "verify": "jclip.conversion.parity.verify:verify",
        "ImportOptions": "jclip.conversion.importing:Options",
    },
)
