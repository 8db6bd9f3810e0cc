"""AltCLIP (Chen et al. 2022): Hugging Face's AltCLIPModel and FlagAI's files, which have the same keys."""

from collections.abc import Collection

from jclip.conversion.families.clip import hf_dual_config, hf_table
from jclip.conversion.families.family import POOLER, POSITION_IDS, TRANSFORMERS_UNSAID, VIT_LAYERS, Family, Hints
from jclip.conversion.towers.bert import bert_config, bert_rows
from jclip.conversion.towers.rows import MappingTable, dense, norm
from jclip.conversion.towers.sizes import Sizes, agree
from jclip.models import zoo
from jclip.models.dual_encoder import DualEncoderConfig


def table(keys: Collection[str]) -> MappingTable:
    """Returns AltCLIP's mapping table."""
    del keys
    head = (*norm("text/head_norm", "text_model.pre_LN"), *dense("text/head", "text_model.transformation"))
    return hf_table((*bert_rows("text_model.roberta."), *head))


def config(sizes: Sizes, keys: Collection[str], hints: Hints) -> DualEncoderConfig:
    """Returns AltCLIP's configuration."""
    del keys
    head_width = sizes.shape("text/head/kernel", 2)[1]
    agree(hints.part("text_config"), {"project_dim": head_width}, f"{sizes.config_name}: text_config.")
    like = zoo.get_text_encoder("xlm-r-large")
    return hf_dual_config(sizes, hints, lambda said: bert_config(sizes, said, like), head_width)


ALTCLIP = Family(
    name="altclip",
    unsaid=TRANSFORMERS_UNSAID,
    title="AltCLIP (Hugging Face or FlagAI)",
    signature=("text_model.transformation.weight", "text_model.roberta.embeddings.word_embeddings.weight"),
    table=table,
    config=config,
    dropped=(POSITION_IDS, POOLER, (r"text_model\.transformation_pre\..*", "used by AltDiffusion-m18 only")),
    spellings=((r"(text_model\.roberta\.encoder)\.layers\.", r"\1.layer."), VIT_LAYERS),  # of transformers 5
    tokenizer="xlmr",
    context_length=77,
)
