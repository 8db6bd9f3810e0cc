"""AltCLIP (Chen et al. 2022): Hugging Face's AltCLIPModel and FlagAI's files, which have the same keys."""

from collections.abc import Collection
from typing import Any

from jclip.conversion.families.clip import hf_dual_config, hf_table
from jclip.conversion.families.family import TRANSFORMERS_UNSAID, UNUSED, VIT_LAYERS, Family, Hints, Start
from jclip.conversion.hf.config import HfModel
from jclip.conversion.parity.references import hf_dual
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.rows import MappingTable, dense, norm
from jclip.conversion.towers.sizes import Sizes, agree
from jclip.models import zoo
from jclip.models.dual_encoder import DualEncoderConfig


def _table(keys: Collection[str]) -> MappingTable:
    head = (*norm("text/head_norm", "text_model.pre_LN"), *dense("text/head", "text_model.transformation"))
    return hf_table((*bert_rows("text_model.roberta."), *head))


def _config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    head_width = sizes.shape("text/head/kernel", 2)[1]
    agree(hints.part("text_config"), {"project_dim": head_width}, f"{sizes.config_name}: text_config.")
    like = zoo.get_text_encoder("xlm-r-large")
    return hf_dual_config(sizes, hints, lambda said: bert_config(sizes, said, like), head_width)


_HF = HfModel("AltCLIP", "altclip", "xlm_r", "text_model.roberta.encoder", tokenizers=("xlmr",), head=True)
_NEW: dict[str, dict[str, Any]] = {
    "text/head_norm/scale": {"initialiser": "ones"},
    "text/head_norm/bias": {"initialiser": "zeros"},
    "text/head/kernel": {"initialiser": "normal", "standard_deviation": 0.02},
    "text/head/bias": {"initialiser": "zeros"},
}
ALTCLIP = Family(
    name="altclip",
    unsaid=TRANSFORMERS_UNSAID,
    title="AltCLIP (Hugging Face or FlagAI)",
    signature=("text_model.transformation.weight", "text_model.roberta.embeddings.word_embeddings.weight"),
    table=_table,
    config=_config,
    reference=hf_dual(_HF),
    dropped=(*UNUSED, (r"text_model\.transformation_pre\..*", "used by AltDiffusion-m18 only")),
    spellings=((r"(text_model\.roberta\.encoder)\.layers\.", r"\1.layer."), VIT_LAYERS),  # of transformers 5
    tokenizer="xlmr",
    context_length=77,
    hf=_HF,
    start=Start("xlm_r", ("logit_scale", "text/projection/kernel"), lambda width: _NEW, teacher="clip_text"),
)
