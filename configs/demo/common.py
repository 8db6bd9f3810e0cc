"""Places, sizes and data that the demo's runs share.

`jclip demo` prepares the data and the tokenizers under HOME and trains english.py, altclip.py, chinese_clip.py and
chinese_clip_control.py in turn. The models have the full-size architecture at two to five million parameters.
"""

from dataclasses import dataclass

from jclip.demo.emoji.protocol import LANGUAGES, TRAIN_ARTISTS
from jclip.demo.emoji.sources import EmojiPairs, EmojiParallel
from jclip.images.on_device import Augmentation
from jclip.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing
from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.models.vit import VitConfig
from jclip.optimizer import Optimizer

HOME = "runs/demo"
ENGLISH_TOKENIZER, MULTILINGUAL_TOKENIZER, CHINESE_TOKENIZER = (
    f"tokenizers/{name}" for name in ("english", "multilingual", "chinese")
)
CONTEXT, ENGLISH_CONTEXT, CHINESE_CONTEXT = 16, 13, 10
"""Maximum numbers of tokens. One Chinese name in 584 is longer, and 8 names in 1,000 of other languages."""

ENGLISH_VOCABULARY, MULTILINGUAL_VOCABULARY, CHINESE_VOCABULARY = 1024, 6000, 21128
EMBED = 128

IMAGE = VitConfig(image_size=32, patch_size=16, width=256, layers=2, heads=4)
ENGLISH_CLIP = DualEncoderConfig(
    image=IMAGE,
    text=ClipTextConfig(vocab_size=ENGLISH_VOCABULARY, context_length=ENGLISH_CONTEXT, width=EMBED, layers=1, heads=2),
    embed_dim=EMBED,
)
"""Stand-in for OpenAI's CLIP: the teacher, and the image tower of all runs."""
ALTCLIP = DualEncoderConfig(
    image=IMAGE,
    text=BertConfig(
        vocab_size=MULTILINGUAL_VOCABULARY,
        width=EMBED,
        layers=2,
        heads=2,
        intermediate=4 * EMBED,
        max_positions=CONTEXT + 2,
        type_vocab_size=1,
        pad_id=1,
        layer_norm_eps=1e-5,
        position_offset="after_padding",
    ),
    embed_dim=EMBED,
    head_width=EMBED,
)
"""XLM-R's architecture with AltCLIP's head. The text projection is the English CLIP's."""
CHINESE_CLIP = DualEncoderConfig(
    image=IMAGE,
    text=BertConfig(
        vocab_size=CHINESE_VOCABULARY,
        width=EMBED,
        layers=2,
        heads=2,
        intermediate=4 * EMBED,
        max_positions=CHINESE_CONTEXT,
        type_vocab_size=2,
        pad_id=0,
        layer_norm_eps=1e-12,
        position_offset="none",
    ),
    embed_dim=EMBED,
)
"""RoBERTa-wwm's architecture and its real vocabulary."""

PREPROCESSING = Preprocessing(
    size=32, mean=CLIP_MEAN, std=CLIP_STD, resize="squash", background=(255, 255, 255), trim=True
)
"""Margins are trimmed: they differ between artists and not between concepts."""
AUGMENTATION = Augmentation(
    scale=0.2,
    aspect=0.2,
    rotate=11.5,
    shear=0.2,
    translate=0.05,
    flip=0.5,
    hue=28.0,
    saturation=0.4,
    gamma=0.4,
    contrast=0.2,
    outside="white",
)

MUON = Optimizer(
    name="muon",
    learning_rate=2e-3,
    beta2=0.95,
    weight_decay=0.1,
    multipliers=((r".*/layers/.*/kernel", 10.0), (r".*", 1.0)),
)
"""On the tuning artists, R@1 of 15.8 against 14.0 with AdamW in as many steps (benchmarks/RESULTS.md)."""


@dataclass(frozen=True)
class Place:
    """Folders of a demo and its training artists.

    Attributes:
      data: folder of the data set and the tokenizers.
      home: folder of the runs.
      artists: artists of the training images.
    """

    data: str = HOME
    home: str = HOME
    artists: tuple[str, ...] = TRAIN_ARTISTS


def pairs(place: Place, *languages: str) -> EmojiPairs:
    """Returns images of known concepts by the training artists, with names in `languages`."""
    return EmojiPairs(f"{place.data}/data", artists=place.artists, languages=languages)


def parallel(place: Place) -> EmojiParallel:
    """Returns names of known concepts in every language beside the English ones, without held-out translations.

    Each English name has thirteen translations and so occurs often; a small `english_share` is enough.
    """
    return EmojiParallel(f"{place.data}/data", languages=LANGUAGES[1:], english_share=0.15)
