"""Chinese-CLIP (Yang et al. 2022): Hugging Face's ChineseCLIPModel, and cn_clip's own checkpoints."""

from collections.abc import Collection
from typing import Any

from jclip.conversion.families.clip import hf_dual_config, hf_table
from jclip.conversion.families.family import COUNTERS, TRANSFORMERS_UNSAID, UNUSED, VIT_LAYERS, Family, Hints, Start
from jclip.conversion.hf.config import HfModel
from jclip.conversion.parity.references import cn_clip, hf_dual
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.resnet import openai_resnet, resnet_blocks, resnet_config
from jclip.conversion.towers.rows import MappingRow, MappingTable
from jclip.conversion.towers.sizes import Sizes
from jclip.conversion.towers.vit import openai_vit, vit_config
from jclip.models import zoo
from jclip.models.dual_encoder import DualEncoderConfig
from jclip.names import TokenizerKind


def _config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    like = zoo.get_text_encoder("roberta-wwm-base")
    return hf_dual_config(sizes, hints, lambda said: bert_config(sizes, said, like))


def _cn_clip_table(keys: Collection[str]) -> MappingTable:
    blocks = resnet_blocks(keys)
    return (
        *(openai_resnet(blocks) if blocks else openai_vit()),
        *bert_rows("bert.", fused=any(".Wqkv." in key and key.startswith("bert.") for key in keys)),
        MappingRow("text/projection/kernel", "text_projection"),
        MappingRow("logit_scale", "logit_scale"),
    )


def _cn_clip_config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    blocks = resnet_blocks(keys)
    activation = hints.fixed_activation("quick_gelu", sizes.where)  # every ViT of cn_clip has it
    image = resnet_config(sizes, blocks) if blocks else vit_config(sizes, {}, activation)
    return DualEncoderConfig(
        image=image,
        text=bert_config(sizes, hints.part("text_config"), zoo.get_text_encoder("roberta-wwm-base")),
        embed_dim=sizes.shape("text/projection/kernel", 2)[1],
    )


def _new(width: int) -> dict[str, dict[str, Any]]:
    return {"text/projection/kernel": {"initialiser": "normal", "standard_deviation": width**-0.5}}


_WORDS: tuple[TokenizerKind, ...] = ("wordpiece", "bert")
_HF = HfModel("ChineseCLIP", "chinese_clip", "bert", "text_model.encoder", _WORDS, "ChineseCLIPImageProcessor")
CHINESE_CLIP = Family(
    name="chinese-clip",
    unsaid=TRANSFORMERS_UNSAID,
    title="Chinese-CLIP (Hugging Face)",
    signature=("text_model.embeddings.word_embeddings.weight", "visual_projection.weight"),
    table=lambda keys: hf_table(bert_rows("text_model.")),
    config=_config,
    reference=hf_dual(_HF),
    dropped=UNUSED,
    spellings=((r"(text_model\.encoder)\.layers\.", r"\1.layer."), VIT_LAYERS),
    tokenizer="wordpiece",
    context_length=52,
    resize="squash",
    hf=_HF,
    start=Start("bert", ("logit_scale",), _new, resizes=True),
)

CN_CLIP = Family(
    name="cn-clip",
    title="Chinese-CLIP (cn_clip)",
    signature=("bert.embeddings.word_embeddings.weight", "visual.conv1.weight"),
    table=_cn_clip_table,
    config=_cn_clip_config,
    reference=cn_clip,
    dropped=(*UNUSED, COUNTERS),
    # Keys saved with flash attention.
    spellings=((r"(visual\..*\.attn)\.Wqkv\.(weight|bias)", r"\1.in_proj_\2"),),
    tokenizer="wordpiece",
    vocabulary=("cn_clip", "clip/vocab.txt"),
    context_length=52,
    resize="squash",
    interpolation="cn_clip",
)
