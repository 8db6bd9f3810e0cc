"""Chinese-CLIP (Yang et al. 2022): Hugging Face's ChineseCLIPModel, and cn_clip's own checkpoints."""

from collections.abc import Collection

from jclip.conversion.families.clip import hf_dual_config, hf_table
from jclip.conversion.families.family import (
    COUNTERS,
    POOLER,
    POSITION_IDS,
    TRANSFORMERS_UNSAID,
    VIT_LAYERS,
    Family,
    Hints,
)
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.resnet import openai_resnet, resnet_blocks, resnet_config
from jclip.conversion.towers.rows import MappingRow, MappingTable
from jclip.conversion.towers.sizes import Sizes
from jclip.conversion.towers.vit import openai_vit, vit_config
from jclip.models import zoo
from jclip.models.dual_encoder import DualEncoderConfig


def hf_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """Returns ChineseCLIPModel's configuration."""
    del keys
    like = zoo.get_text_encoder("roberta-wwm-base")
    return hf_dual_config(sizes, hints, lambda said: bert_config(sizes, said, like))


def cn_clip_table(keys: Collection[str]) -> MappingTable:
    """Returns cn_clip's mapping table: OpenAI's image tower and a BERT."""
    blocks = resnet_blocks(keys)
    return (
        *(openai_resnet(blocks) if blocks else openai_vit()),
        *bert_rows("bert.", fused=any(".Wqkv." in key and key.startswith("bert.") for key in keys)),
        MappingRow("text/projection/kernel", "text_projection"),
        MappingRow("logit_scale", "logit_scale"),
    )


def cn_clip_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """Returns the configuration of a cn_clip checkpoint. Every ViT of cn_clip has QuickGELU."""
    blocks = resnet_blocks(keys)
    activation = hints.fixed_activation("quick_gelu", sizes.where)
    image = resnet_config(sizes, blocks) if blocks else vit_config(sizes, {}, activation)
    return DualEncoderConfig(
        image=image,
        text=bert_config(sizes, hints.part("text_config"), zoo.get_text_encoder("roberta-wwm-base")),
        embed_dim=sizes.shape("text/projection/kernel", 2)[1],
    )


CHINESE_CLIP = Family(
    name="chinese-clip",
    unsaid=TRANSFORMERS_UNSAID,
    title="Chinese-CLIP (Hugging Face)",
    signature=("text_model.embeddings.word_embeddings.weight", "visual_projection.weight"),
    table=lambda keys: hf_table(bert_rows("text_model.")),
    config=hf_config,
    dropped=(POSITION_IDS, POOLER),
    spellings=((r"(text_model\.encoder)\.layers\.", r"\1.layer."), VIT_LAYERS),
    tokenizer="wordpiece",
    context_length=52,
    resize="squash",
)

CN_CLIP = Family(
    name="cn-clip",
    title="Chinese-CLIP (cn_clip)",
    signature=("bert.embeddings.word_embeddings.weight", "visual.conv1.weight"),
    table=cn_clip_table,
    config=cn_clip_config,
    dropped=(POSITION_IDS, POOLER, COUNTERS),
    # Keys saved with flash attention.
    spellings=((r"(visual\..*\.attn)\.Wqkv\.(weight|bias)", r"\1.in_proj_\2"),),
    tokenizer="wordpiece",
    vocabulary=("cn_clip", "clip/vocab.txt"),
    context_length=52,
    resize="squash",
    interpolation="cn_clip",
)
