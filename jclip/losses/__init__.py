"""The losses.

Names:
  ContrastiveLoss: settings of the contrastive loss: softmax or sigmoid, dense, chunked or ring.
  contrastive_loss: returns the contrastive loss over the global batch.
  teacher_loss: returns the mean squared error to the teacher's text state.
"""

from typing import TYPE_CHECKING

from jclip.lazy import lazy

if TYPE_CHECKING:
    from jclip.losses.contrastive import ContrastiveLoss as ContrastiveLoss
    from jclip.losses.contrastive import contrastive_loss as contrastive_loss
    from jclip.losses.distillation import teacher_loss as teacher_loss

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "ContrastiveLoss": "jclip.losses.contrastive:ContrastiveLoss",
        "contrastive_loss": "jclip.losses.contrastive:contrastive_loss",
        "teacher_loss": "jclip.losses.distillation:teacher_loss",
    },
)
