"""Plans of the papers' recipes from shapes alone, checked against figures worked out by hand."""

from pathlib import Path

import pytest

from jclip.cli.configs import load_config
from jclip.train.plan import plan

CONFIGS = Path(__file__).parents[2] / "configs"


def test_chinese_clip_b16():
    frozen, everything = plan(load_config(str(CONFIGS / "chinese_clip" / "vit_b_16.py")))
    assert (frozen.trainable, frozen.frozen) == (102_070_273, 86_192_640)
    assert (everything.trainable, everything.frozen) == (188_262_913, 0)
    assert frozen.steps == -(-44 * 200_000_000 // 32_768)
    # Forward of a ViT-B/16 picture, by hand: patches, then 12 layers of projections, attention and perceptron.
    image = 2 * (196 * 768 * 768 + 12 * (197 * 12 * 768**2 + 2 * 197**2 * 768) + 768 * 512)
    text = 2 * (12 * (52 * 12 * 768**2 + 2 * 52**2 * 768) + 768 * 512)
    # The loss: logits once, and once each for the two gradients; the ring computes them again on the way back.
    assert frozen.flops_per_step / frozen.batch_size == pytest.approx(image + 3 * text, rel=0.03)
    assert everything.flops_per_step / everything.batch_size == pytest.approx(3 * (image + text), rel=0.03)


def test_altclip():
    teacher, contrastive = plan(load_config(str(CONFIGS / "altclip" / "vit_l_14.py")))
    assert teacher.steps == 238_620
    assert teacher.trainable == 559_630_080  # all of the text tower but its projection
    assert contrastive.trainable == 559_630_080 + 768 * 768 + 1
    assert teacher.trainable + teacher.frozen == contrastive.trainable + contrastive.frozen == 864_186_113
    assert ("image/*", 303_966_208, False) in teacher.groups
