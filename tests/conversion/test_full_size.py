"""Published models at their real sizes, with random weights, through `jclip convert`: minutes, gigabytes of disk."""

import json
import tempfile
from pathlib import Path

import pytest

from conversion.comparison import EMBEDDINGS_WITHIN, LOGITS_WITHIN
from conversion.convert import convert
from conversion.importing import Options
from tests.conversion import full_size
from tests.models.test_zoo import COUNTS, TEXT_COUNTS

MODELS = [
    ("chinese-clip-rn50", "cn-clip"),
    ("chinese-clip-vit-b-32", "cn-clip"),
    ("chinese-clip-vit-b-16", "cn-clip"),
    ("chinese-clip-vit-b-16", "chinese-clip"),
    ("chinese-clip-vit-l-14", "cn-clip"),
    ("chinese-clip-vit-l-14-336", "chinese-clip"),
    ("chinese-clip-vit-h-14", "cn-clip"),
    ("altclip", "altclip"),
    ("altclip-m18", "altclip"),
    ("clip-rn50", "openai-clip"),
    ("clip-vit-b-32", "clip"),
    ("clip-vit-b-16", "openai-clip"),
    ("clip-vit-l-14", "clip"),
    ("clip-vit-l-14-336", "openai-clip"),
    ("clip-vit-h-14", "open-clip"),
    ("xlm-r-base", "xlm-r"),
    ("xlm-r-large", "xlm-r"),
    ("roberta-wwm-base", "bert"),
    ("roberta-wwm-large", "bert"),
    ("rbt3", "bert"),
]


@pytest.fixture
def place():
    """A folder that goes with its gigabytes at once; pytest would keep those of all tests."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), MODELS, ids=lambda value: value)
def test_full_size(name, family, place):
    source = full_size.write(name, family, place / "source")
    whole = (source / "config.json").is_file()
    vocabulary = None if whole else source
    options = Options(family=family, tokenizer=vocabulary, activation="gelu" if family == "open-clip" else None)
    made = convert(str(source if whole else source / "model.safetensors"), place / "bundle", options, lambda what: None)
    config = json.loads((place / "bundle" / "config.json").read_text())["model"]
    assert made["parameters"]["all"] == (COUNTS | TEXT_COUNTS)[name]
    comparison = made["sources"][0]["comparison"]
    assert comparison["compared"]
    assert max(comparison["embeddings"].values()) < EMBEDDINGS_WITHIN
    assert (comparison["logits"] or 0) < LOGITS_WITHIN
    assert config["text"]["heads"] * 64 == config["text"]["width"]
    worst = max(layer["relative"] for layer in comparison["layers"])
    print(
        f"\n| {name} | {family} | {comparison['reference']} | {worst:.1e} | "
        f"{max(comparison['embeddings'].values()):.1e} | {comparison['logits'] or 0:.1e} |"
    )
