"""CLIP (Radford et al. 2021): Hugging Face's CLIPModel."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from jclip.conversion.families.family import POSITION_IDS, TRANSFORMERS_UNSAID, Family, Hints
from jclip.conversion.hf.config import HfModel
from jclip.conversion.parity.references import hf_dual
from jclip.conversion.towers.clip_text import clip_text_config, hf_clip_text
from jclip.conversion.towers.rows import MappingRow, MappingTable, dense
from jclip.conversion.towers.sizes import Sizes, agree
from jclip.conversion.towers.vit import hf_vit, vit_config
from jclip.models.clip_text import ClipTextConfig
from jclip.models.dual_encoder import DualEncoderConfig


def hf_table(text: Iterable[MappingRow]) -> MappingTable:
    """Returns the mapping table of a dual encoder of transformers, given the rows of its text tower."""
    return (
        *hf_vit(),
        *dense("image/projection", "visual_projection", bias=False),
        *text,
        *dense("text/projection", "text_projection", bias=False),
        MappingRow("logit_scale", "logit_scale"),
    )


def hf_dual_config(
    sizes: Sizes, hints: Hints, text: Callable[[Mapping[str, Any]], Any], head_width: int | None = None
) -> DualEncoderConfig:
    """Returns the configuration of a dual encoder of transformers.

    A CLIP tower has QuickGELU if no activation is given, as in transformers. `text` returns the text tower, given its
    text_config. `head_width` is the width of AltCLIP's head; None without a head.
    """
    embed_dim = sizes.shape("image/projection/kernel", 2)[1]
    agree(hints.config, {"projection_dim": embed_dim}, f"{sizes.config_name}: ")
    activation = hints.activation_or("quick_gelu", "vision_config")
    image = vit_config(sizes, hints.part("vision_config"), activation)
    return DualEncoderConfig(image, text(hints.part("text_config")), embed_dim, head_width)


def _config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    def text(said: Mapping[str, Any]) -> ClipTextConfig:
        return clip_text_config(sizes, said, hints.activation_or("quick_gelu", "text_config"))

    return hf_dual_config(sizes, hints, text)


_HF = HfModel("CLIP", "clip", "clip_text", "text_model.encoder", tokenizers=("clip_bpe",))
CLIP = Family(
    name="clip",
    unsaid=TRANSFORMERS_UNSAID,
    title="CLIP (Hugging Face)",
    signature=("text_model.embeddings.token_embedding.weight", "visual_projection.weight"),
    table=lambda keys: hf_table(hf_clip_text()),
    config=_config,
    reference=hf_dual(_HF),
    dropped=(POSITION_IDS,),
    tokenizer="clip_bpe",
    vocabulary=("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    context_length=None,
    hf=_HF,
)
