"""CLIP (Radford et al. 2021): Hugging Face's CLIPModel."""

from collections.abc import Collection

from jclip.conversion.families.family import POSITION_IDS, TRANSFORMERS_UNSAID, Family, Hints
from jclip.conversion.towers.clip_text import clip_text_config, hf_clip_text
from jclip.conversion.towers.rows import MappingRow, MappingTable, dense
from jclip.conversion.towers.sizes import Sizes, agree
from jclip.conversion.towers.vit import hf_vit, vit_config
from jclip.models.dual_encoder import DualEncoderConfig


def table(keys: Collection[str]) -> MappingTable:
    """Returns all rows."""
    del keys
    return (
        *hf_vit(),
        *dense("image/projection", "visual_projection", bias=False),
        *hf_clip_text(),
        *dense("text/projection", "text_projection", bias=False),
        MappingRow("logit_scale", "logit_scale"),
    )


def config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """Returns the configuration. Without a given activation a tower has QuickGELU, as in transformers."""
    del keys
    embed_dim = sizes.shape("image/projection/kernel", 2)[1]
    agree(hints.config, {"projection_dim": embed_dim}, f"{sizes.said_in}: ")
    return DualEncoderConfig(
        image=vit_config(sizes, hints.part("vision_config"), hints.activation_or("quick_gelu", "vision_config")),
        text=clip_text_config(sizes, hints.part("text_config"), hints.activation_or("quick_gelu", "text_config")),
        embed_dim=embed_dim,
    )


CLIP = Family(
    name="clip",
    unsaid=TRANSFORMERS_UNSAID,
    title="CLIP (Hugging Face)",
    signature=("text_model.embeddings.token_embedding.weight", "visual_projection.weight"),
    table=table,
    config=config,
    dropped=(POSITION_IDS,),
    tokenizer="clip_bpe",
    vocabulary=("open_clip", "bpe_simple_vocab_16e6.txt.gz"),
    context_length=None,
)
