"""Losses over a global batch.

Names:
  contrastive_loss, ContrastiveLoss: softmax or sigmoid loss of image-text pairs, and its options.
  teacher_loss: distance of a student's text states from a teacher's.
  l2_normalised: rows of length 1.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.losses.contrastive import ContrastiveLoss as ContrastiveLoss
    from jclip.losses.contrastive import contrastive_loss as contrastive_loss
    from jclip.losses.distillation import teacher_loss as teacher_loss
    from jclip.losses.normalise import l2_normalised as l2_normalised

__all__, __getattr__, __dir__ = lazy(__name__, __file__)
