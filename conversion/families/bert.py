"""Text encoders: BERT and Chinese RoBERTa-wwm, XLM-R, and sentence encoders built on them."""

from collections.abc import Collection
from dataclasses import replace

from jclip.conversion.families.family import POOLER, POSITION_IDS, TRANSFORMERS_UNSAID, Family, Hints
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.rows import MappingTable
from jclip.conversion.towers.sizes import Sizes
from jclip.models import zoo
from jclip.models.bert import BertConfig
from jclip.models.text_encoder import TextEncoderConfig


def table(keys: Collection[str]) -> MappingTable:
    """Returns the mapping table of a BERT or XLM-R."""
    del keys
    return tuple(bert_rows(""))


def _encoder(sizes: Sizes, hints: Hints, like: BertConfig) -> TextEncoderConfig:
    return TextEncoderConfig(bert_config(sizes, hints.config, like, part=""), hints.pooling or "cls")


def config(sizes: Sizes, keys: Collection[str], hints: Hints) -> TextEncoderConfig:
    """Returns a BERT's configuration."""
    del keys
    return _encoder(sizes, hints, zoo.get_text_encoder("roberta-wwm-base"))


def xlm_r_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> TextEncoderConfig:
    """Returns XLM-R's configuration."""
    del keys
    return _encoder(sizes, hints, zoo.get_text_encoder("xlm-r-large"))


BERT = Family(
    name="bert",
    unsaid=TRANSFORMERS_UNSAID,
    title="BERT or Chinese RoBERTa-wwm",
    signature=("embeddings.word_embeddings.weight",),
    table=table,
    config=config,
    dropped=(POSITION_IDS, POOLER, (r"cls\..*|lm_head\..*", "the head of masked language modelling")),
    spellings=(
        (r"(bert|roberta)\.(?=embeddings\.|encoder\.|pooler\.)", ""),
        (r"(.*\.LayerNorm)\.gamma", r"\1.weight"),  # written by the first converters from TensorFlow
        (r"(.*\.LayerNorm)\.beta", r"\1.bias"),
        (r"(encoder)\.layers\.", r"\1.layer."),
    ),
    tokenizer="bert",
    context_length=None,
)
XLM_R = replace(BERT, name="xlm-r", title="XLM-R", config=xlm_r_config, tokenizer="xlmr")
