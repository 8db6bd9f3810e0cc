"""Facts of towers that differ by kind."""

from jclip.models.bert import BertConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.resnet import ResNetConfig


def longest_text(model: DualEncoderConfig) -> int:
    """Returns the maximum number of tokens that the text tower reads."""
    return model.text.longest if isinstance(model.text, BertConfig) else model.text.context_length


def has_statistics(model: DualEncoderConfig) -> bool:
    """Returns whether the image tower has batch norm."""
    return isinstance(model.image, ResNetConfig)
