"""CLIP (Radford et al. 2021): Hugging Face's CLIPModel."""

from collections.abc import Collection

from jclip.conversion.families.family import POSITION_IDS, TRANSFORMERS_UNSAID, Family, Hints
from jclip.conversion.rows import Row, Table, dense
from jclip.conversion.sizes import Sizes, agree, clip_text_config, vit_config
from jclip.conversion.towers import hf_clip_text, hf_vit
from jclip.models.dual_encoder import DualEncoderConfig


def table(keys: Collection[str]) -> Table:
    """All rows."""
    del keys
    return (
        *hf_vit(),
        *dense("image/projection", "visual_projection", bias=False),
        *hf_clip_text(),
        *dense("text/projection", "text_projection", bias=False),
        Row("logit_scale", "logit_scale"),
    )


def config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """The configuration; a tower whose activation nobody names has QuickGELU, as transformers builds it."""
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
