"""Bilingual and multilingual CLIP in JAX: AltCLIP and Chinese-CLIP.

    model = jclip.load("hf://OFA-Sys/chinese-clip-vit-base-patch16")

Names:
  load: returns the model of a bundle, a checkpoint or a repository of the hub, ready to encode images and texts.
  Model: a loaded model.
  save: writes a model or a `Bundle` to a folder.
  load_bundle: returns the `Bundle` in a folder.
  Bundle: a model's configuration, parameters, tokenizer and preprocessing.
  Preprocessing: settings that turn an image into the image tower's input.
  DualEncoder: the Flax module with both towers.
  DualEncoderConfig: configuration of a `DualEncoder`.
  JclipError: every error that a user can fix; the message says how.

More names are in jclip.models, jclip.losses, jclip.tokenizers, jclip.data, jclip.train, jclip.evaluate,
jclip.conversion and jclip.configs. Importing jclip imports none of them.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.bundle import Bundle as Bundle
    from jclip.bundle import load_bundle as load_bundle
    from jclip.errors import JclipError as JclipError
    from jclip.images.preprocess import Preprocessing as Preprocessing
    from jclip.inference import Model as Model
    from jclip.inference import save as save
    from jclip.loading import load as load
    from jclip.models.dual_encoder import DualEncoder as DualEncoder
    from jclip.models.dual_encoder import DualEncoderConfig as DualEncoderConfig

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
