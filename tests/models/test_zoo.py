"""Every published model has exactly the published number of parameters. Shapes only: nothing is allocated."""

import functools
import math

import jax
import pytest

from jclip.errors import JclipError
from jclip.models import build, zoo
from jclip.models.text_encoder import TextEncoderConfig
from jclip.models.vit import VitConfig

COUNTS = {
    "clip-rn50": 102_007_137,
    "clip-vit-b-32": 151_277_313,
    "clip-vit-b-16": 149_620_737,
    "clip-vit-l-14": 427_616_513,
    "clip-vit-l-14-336": 427_944_193,
    "clip-vit-h-14": 986_109_441,
    "chinese-clip-rn50": 76_989_537,
    "chinese-clip-vit-b-32": 189_919_489,
    "chinese-clip-vit-b-16": 188_262_913,
    "chinese-clip-vit-l-14": 406_233_089,
    "chinese-clip-vit-l-14-336": 406_560_769,
    "chinese-clip-vit-h-14": 957_598_209,
    "altclip": 864_186_113,
    "altclip-m9": 864_186_113,
    "altclip-m18": 1_193_017_857,
}
TEXT_COUNTS = {  # without pooler, head and projection
    "roberta-wwm-base": 101_677_056,
    "roberta-wwm-large": 324_472_832,
    "rbt3": 37_886_208,
    "xlm-r-base": 277_453_056,
    "xlm-r-large": 558_840_832,
}


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def shapes(name: str):
    return build.shapes(zoo.get_config(name))["params"]


def test_every_model_is_counted():
    assert set(COUNTS) == set(zoo.MODELS)
    assert set(TEXT_COUNTS) == set(zoo.TEXT_ENCODERS)


@pytest.mark.parametrize("name", COUNTS)
def test_published_count(name):
    assert count(shapes(name)) == COUNTS[name]


@pytest.mark.parametrize("name", TEXT_COUNTS)
def test_text_encoder_count(name):
    params = build.shapes(TextEncoderConfig(zoo.get_text_encoder(name)))["params"]
    assert count(params) == TEXT_COUNTS[name]


def test_parts_of_rn50_and_altclip():
    rn50 = shapes("chinese-clip-rn50")
    assert (count(rn50["image"]), count(rn50["text"])) == (38_316_896, 38_672_640)
    altclip = shapes("altclip")["text"]
    assert count(altclip) - count(altclip["projection"]) == 559_630_080
    m18 = shapes("altclip-m18")
    assert count(m18["image"]) - count(m18["image"]["projection"]) == 630_766_080


def test_head_widths():
    for name, config in zoo.MODELS.items():
        if isinstance(config.image, VitConfig):
            expected = 80 if "h-14" in name or name == "altclip-m18" else 64
            assert config.image.width // config.image.heads == expected, name
        assert config.text.width // config.text.heads == 64, name


def test_context():
    assert zoo.get_config("altclip").text.longest == zoo.get_config("chinese-clip-rn50").text.longest == 512
    assert zoo.get_config("clip-vit-b-16").text.context_length == 77


@pytest.mark.parametrize(
    ("get", "name", "message"),
    [
        (zoo.get_config, "chinese-clip-vit-b16", "model 'chinese-clip-vit-b16' is unknown: did you mean chinese-clip"),
        (zoo.get_config, "?", "choose one of clip-rn50, .*altclip-m18$"),
        (zoo.get_text_encoder, "xlmr-large", "text encoder 'xlmr-large' is unknown: did you mean xlm-r-large"),
    ],
)
def test_an_unknown_name_gets_the_close_ones(get, name, message):
    with pytest.raises(JclipError, match=message):
        get(name)
