"""A user's own file, with towers, an objective and a source: planned, trained with workers, and its bundle used."""

import sys

import pytest

from jclip import config
from jclip.bundle import open_bundle
from jclip.cli import main
from jclip.data.sources.synthetic import write_tokenizer
from jclip.errors import JclipError

OWN = '''
"""A run with classes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from own_records import Squares

from jclip import Preprocessing
from jclip.data import Pair, Source
from jclip.losses import l2_normalised
from jclip.models import DualEncoderConfig, ImageTower, TextTower
from jclip.train import Budget, Contrastive, Objective, Optimizer, Program, Run, Stage, encode_image, kind_of


@kind_of(ImageTower)
@dataclass(frozen=True)
class OwnImages(ImageTower):
    """Map of the mean colour.

    Attributes:
      image_size: side, pixels.
      scale: factor.
    """

    image_size: int = 8
    scale: float = 1.0

    def build(self, embed_dim, compute, *, frozen_layers=0, patch_dropout=0.0):
        return Images(embed_dim, self.scale)

    def reduced(self, image_size):
        return self


class Images(nn.Module):
    embed_dim: int
    scale: float

    @nn.compact
    def __call__(self, images_bhwc, train=False, rows_b=None):
        return self.scale * nn.Dense(self.embed_dim, use_bias=False)(images_bhwc.mean(axis=(1, 2)))


@kind_of(TextTower)
@dataclass(frozen=True)
class OwnTexts(TextTower):
    """Mean of embeddings."""

    vocab_size: int
    longest: int = 8
    width: int = 4
    pad_id: int = 0

    def build(self, embed_dim, compute, *, head_width=None, frozen_layers=0):
        return Texts(self.vocab_size, embed_dim)

    def reduced(self, vocab_size, context_length):
        return self


class Texts(nn.Module):
    vocab_size: int
    embed_dim: int

    @nn.compact
    def __call__(self, ids_bl, rows_b=None):
        return nn.Embed(self.vocab_size, self.embed_dim)(ids_bl).mean(axis=1)


@kind_of(Objective)
@dataclass(frozen=True)
class OwnObjective(Contrastive):
    """Mean distance of an image from its text.

    Attributes:
      weight: factor.
    """

    title: ClassVar[str] = "own alignment"
    caches: ClassVar[bool] = False

    weight: float = 1.0

    def program(self, context):
        def loss(params, stats, constants, batch, key):
            image = encode_image(context.towers, context.preprocessing, {"params": params}, batch["image"])
            text = context.towers.apply({"params": params}, batch["text"], method="encode_text")
            cosine = (l2_normalised(image) * l2_normalised(text)).sum(axis=1).mean()
            return self.weight * (1 - cosine), ({"cosine": cosine}, stats)

        return Program(loss, super().program(context).batch)


@kind_of(Source)
@dataclass(frozen=True)
class OwnSource(Source):
    """Squares with their numbers."""

    count: int = 32
    weight: float = 1.0

    gives: ClassVar[type] = Pair

    def open(self, preprocessing=None):
        return Squares(self.count)


def config(vocab_size: int = 100) -> Run:
    stage = Stage("own", OwnObjective(), (OwnSource(),), 16, Budget(steps=2), Optimizer(), context_length=8)
    model = DualEncoderConfig(OwnImages(), OwnTexts(vocab_size), 4)
    return Run("own", model, "tokenizer", Preprocessing(size=8), (stage,))
'''
RECORDS = """
from collections.abc import Sequence

import numpy as np

from jclip.data import Pair


class Squares(Sequence):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, n):
        return Pair((np.full((8, 8, 3), 7 * n % 256, np.uint8),), (f"square {n}",), (n,), n)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Another folder than the current one holds the file and its neighbour; the current one holds the tokenizer."""
    home = tmp_path_factory.mktemp("own")
    size = write_tokenizer("wordpiece", home / "tokenizer").vocab_size
    (home / "mine").mkdir()
    (home / "mine" / "cfg.py").write_text(OWN.replace("= 100)", f"= {size})"), encoding="utf-8")
    (home / "mine" / "own_records.py").write_text(RECORDS, encoding="utf-8")
    return home


@pytest.fixture(autouse=True)
def _in_it(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(config, "_KINDS", {protocol: dict(known) for protocol, known in config._KINDS.items()})


def test_it_is_planned_explained_and_trained_in_worker_processes(home, capsys):
    assert main(["plan", "mine/cfg.py", "--no-compile", "--stages.0.objective.weight", "2"]) == 0
    assert "own alignment" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", "mine/cfg.py", "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "--model.image.scale" in shown and "--stages.0.objective.weight" in shown
    assert main(["train", "mine/cfg.py", "--workdir", "run", "--stages.0.workers", "1"]) == 0


def test_other_commands_find_its_classes(home, monkeypatch, capsys):
    bundle = home / "run" / "1-own"
    for known in config._KINDS.values():  # as in a new process
        for name in ("OwnImages", "OwnTexts"):
            known.pop(name, None)
    with pytest.raises(JclipError, match="image cannot be a OwnImages: choose one of .*, or set JCLIP_KINDS"):
        open_bundle(bundle)
    (home / "broken.py").write_text("raise ValueError('oh')\n")
    monkeypatch.setenv("JCLIP_KINDS", "broken.py")
    with pytest.raises(JclipError, match="JCLIP_KINDS: broken.py cannot be read: ValueError: oh"):
        open_bundle(bundle)
    assert "jclip_file_broken" not in sys.modules
    monkeypatch.setenv("JCLIP_KINDS", "json,mine/cfg.py")
    (home / "pairs.tsv").write_text("".join(f"{n}.png\tsquare {n}\n" for n in range(2)))
    from PIL import Image

    for n in range(2):
        Image.new("RGB", (8, 8), (90 * n,) * 3).save(home / f"{n}.png")
    assert main(["eval", "retrieval", str(bundle), "pairs.tsv", "--json"]) == 0
    assert '"mean_recall"' in capsys.readouterr().out


def test_an_installed_package_declares_its_classes(home, tmp_path, monkeypatch):
    package = tmp_path / "own_towers-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-towers\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[jclip.kinds]\nOwnImages = own_towers\nOwnTexts = own_towers\n")
    (tmp_path / "own_towers.py").write_text((home / "mine" / "cfg.py").read_text(encoding="utf-8"), encoding="utf-8")
    sys.path[:0] = [str(tmp_path), str(home / "mine")]
    for known in config._KINDS.values():
        for name in [name for name in known if name.startswith("Own")]:
            del known[name]
    assert type(open_bundle(home / "run" / "1-own").config.image).__module__ == "own_towers"
