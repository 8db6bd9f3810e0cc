"""Text encoders: BERT and Chinese RoBERTa-wwm, XLM-R, and sentence encoders built on them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from jclip.conversion.families.family import TRANSFORMERS_UNSAID, UNUSED, Family, Hints, Shapes
from jclip.conversion.parity.references import hf_encoder
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.sizes import Sizes
from jclip.errors import JclipError
from jclip.models import zoo
from jclip.models.text_encoder import TextEncoderConfig

_KNOWN_WIDTHS = (768, 1024)  # BERT, RoBERTa-wwm, RBT3 and XLM-R, base and large
_XLM_R_TYPES = ("xlm-roberta", "xlm_roberta")  # model_type in transformers


def _config(like: str) -> Callable[[Sizes, Collection[str], Hints], TextEncoderConfig]:
    """Returns a `Family.config`. What the checkpoint does not say is as in `like`, a text encoder of the zoo."""

    def config(sizes: Sizes, keys: Collection[str], hints: Hints) -> TextEncoderConfig:
        text = bert_config(sizes, hints.config, zoo.get_text_encoder(like), part="")
        if not hints.config and text.width not in _KNOWN_WIDTHS:  # the shapes do not show the number of heads
            raise JclipError(
                f"{sizes.where} comes without a config.json, and states of width {text.width} may have any number of "
                "heads: put its config.json beside it, and name the folder"
            )
        if not hints.config and hints.pooling is None:
            hints.assumed.append("without a 1_Pooling: pooling at the first token")
        return TextEncoderConfig(text, hints.pooling or "cls")

    return config


def _unless(*types: str) -> Callable[[Shapes, Mapping[str, Any], bool], str]:
    """Returns a `Family.contradiction` that objects to these model_types of transformers."""
    return lambda shapes, said, _: f"its model_type is {said['model_type']}" if said.get("model_type") in types else ""


def _is_xlm_r(shapes: Shapes, said: Mapping[str, Any], torchscript: bool) -> bool:
    if "model_type" in said:
        return said["model_type"] in _XLM_R_TYPES
    # BERT has two token types. XLM-R has one, and two more positions than a power of two.
    tables = {key: shape for key, shape in shapes.items() if key.endswith("_embeddings.weight")}
    types = [shape[0] for key, shape in tables.items() if "token_type" in key and shape]
    positions = [shape[0] for key, shape in tables.items() if "position" in key and shape]
    return types == [1] and len(positions) == 1 and positions[0] % 2 == 0 and (positions[0] - 2) % 8 == 0


BERT = Family(
    name="bert",
    unsaid=TRANSFORMERS_UNSAID,
    title="BERT or Chinese RoBERTa-wwm",
    signature=("embeddings.word_embeddings.weight",),
    table=lambda keys: tuple(bert_rows("")),
    config=_config("roberta-wwm-base"),
    reference=hf_encoder("Bert", "bert"),
    dropped=(*UNUSED, (r"cls\..*|lm_head\..*", "the head of masked language modelling")),
    spellings=(
        (r"(bert|roberta)\.(?=embeddings\.|encoder\.|pooler\.)", ""),
        (r"(.*\.LayerNorm)\.gamma", r"\1.weight"),  # written by the first converters from TensorFlow
        (r"(.*\.LayerNorm)\.beta", r"\1.bias"),
        (r"(encoder)\.layers\.", r"\1.layer."),
    ),
    tokenizer="bert",
    context_length=None,
    contradiction=_unless(*_XLM_R_TYPES),
    text_only=True,
)
XLM_R = replace(
    BERT,
    name="xlm-r",
    title="XLM-R",
    config=_config("xlm-r-large"),
    reference=hf_encoder("XLMRoberta", "xlm-roberta"),
    tokenizer="xlmr",
    accepts=_is_xlm_r,
    contradiction=_unless("bert"),
)
