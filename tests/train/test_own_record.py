"""A record, a source and an objective from outside jclip: planned, trained, cached and resumed from a moved folder."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jclip.cli import main
from jclip.cli.configs import _Loaded
from jclip.config import kind_of
from jclip.data.sources.records import Record
from jclip.data.sources.source import Source
from jclip.images.on_host import HostAugmentation
from jclip.images.preprocess import normalise, to_array
from jclip.losses import l2_normalised
from jclip.marks import Folder, Mixing
from jclip.stages import FrozenTower
from jclip.tokenizers.text import load_tokenizer
from jclip.train import Budget, Objective, Program, run
from jclip.train.identity import OtherConfiguration, check_same, identity
from jclip.train.logging.sinks import read_journal
from tests.train.runs import Watch, assert_same_bundles, losses


@dataclass(frozen=True)
class Shot(Record):
    """Photographs of a thing, one after another, with its name."""

    pictures: tuple
    name: str

    def inputs(self):
        return len(self.pictures)


@kind_of(Source)
@dataclass(frozen=True)
class Shots(Source):
    """One, two or three photographs of each thing; the last one of the last thing is damaged.

    Attributes:
      place: the folder that a real source would read.
      weight: share in a mixture.
    """

    gives: ClassVar[type[Record]] = Shot

    place: Folder = ""
    weight: Mixing[float] = 1.0

    def open(self, preprocessing=None):
        greys = [[np.full((8, 8, 3), 40 * n + m, np.uint8) for m in range(1 + n % 3)] for n in range(6)]
        greys[-1][-1] = b"no picture"
        return [Shot(tuple(some), f"red apple {'x' * n}") for n, some in enumerate(greys)]


class Taken(NamedTuple):
    where: tuple[int, int, int]
    picture: Any
    name: str


class ShotExamples:
    """One photograph of a shot, with its name."""

    text_name = "names"

    def __init__(self, opened, decode):
        self._opened, self._decode = opened, decode

    def draw(self, unit, record, random):
        picture = int(random.integers(len(record.pictures)))
        return Taken((unit.source, unit.record, picture), record.pictures[picture], record.name)

    def text(self, example):
        return example.name

    def load(self, example, index, features):
        source, record, picture = example.where
        if features is not None:
            return features[source].row(record, picture)
        return self._decode(example.picture, index, self._opened.picture_name(source, record, example.picture))

    def collate(self, examples, loaded, features):
        return {"photograph" if features is None else "feature": np.stack(loaded)}


@kind_of(Objective)
@dataclass(frozen=True)
class Naming(Objective):
    """The text tower learns the directions of the frozen image tower's features."""

    title: ClassVar[str] = "naming"
    reads: ClassVar[type[Record]] = Shot
    caches: ClassVar[bool] = True
    figures = (("cosine", "closeness", ".2f"),)

    def batches(self, make, opened):
        return make(lambda sources, decoder: ShotExamples(sources, decoder(HostAugmentation())))

    def program(self, context):
        side, model = context.preprocessing.size, context.towers
        batch = {"example": context.rows((), jnp.int32)}
        batch["names"] = context.rows((context.stage.context_length,), jnp.int32)
        if context.stage.cache:
            batch["feature"] = context.rows((model.config.embed_dim,), jnp.float32)
        else:
            batch["photograph"] = context.rows((side, side, 3), jnp.uint8)

        def loss(params, stats, constants, batch, key):
            image = (
                batch["feature"] if "feature" in batch else _encoded(context, {"params": params}, batch["photograph"])
            )
            text = model.apply({"params": params}, batch["names"], method="encode_text")
            cosine = (l2_normalised(image) * l2_normalised(text)).sum(axis=1).mean()
            return 1 - cosine, ({"cosine": cosine}, stats)

        return Program(loss, batch)

    def frozen_tower(self, context, opened, params, stats):
        preprocessing = context.preprocessing

        def read(sources, source, record, picture):
            shown = sources.records[source][record].pictures[picture]
            return to_array(preprocessing, shown, sources.picture_name(source, record, shown))

        return FrozenTower(
            name="photographs",
            variables={"params": {"image": params["image"]}},
            apply=lambda variables, pixels: _encoded(context, variables, pixels),
            read=read,
            blank=np.zeros((preprocessing.size, preprocessing.size, 3), np.uint8),
            description={},
        )


def _encoded(context, variables, pixels):
    pixels = normalise(context.preprocessing, pixels.astype(jnp.float32))
    return context.towers.apply(variables, pixels, method="encode_image")


@pytest.fixture
def naming(toy_run):
    stage = replace(
        toy_run.stages[0],
        name="naming",
        objective=Naming(),
        data=(Shots("here"),),
        trains=((r"text/.*", True), (r".*", False)),
        budget=Budget(steps=6),
        max_unreadable=1,
    )
    return replace(toy_run, name="named", stages=(stage,))


def with_stage(run_, **changes):
    return replace(run_, stages=(replace(run_.stages[0], **changes),))


def test_it_trains_and_from_a_cache_the_same(naming, tmp_path):
    watch = Watch()
    live = run(naming, tmp_path / "live", watcher=watch)
    cached = run(with_stage(naming, cache=str(tmp_path / "cache")), tmp_path / "cached")
    assert_same_bundles(live.bundles, cached.bundles)
    found = losses(tmp_path / "live")
    assert losses(tmp_path / "cached") == found and found[-1][1] < found[0][1]
    records = read_journal(tmp_path / "cached" / "metrics.jsonl")
    assert [line["rows"] for line in records if line["kind"] == "cache"] == [1 + 2 + 3 + 1 + 2 + 3]
    for folder in ("live", "cached"):
        records = read_journal(tmp_path / folder / "metrics.jsonl")
        assert all(0 < line["padding"] < 1 for line in records if line["kind"] == "train")
        (unreadable,) = [line for line in records if line["kind"] == "unreadable"]
        assert "the image of record 5 cannot be read" in unreadable["pictures"][0]
    (reads,) = [record["reads"] for record in watch.records if "reads" in record]
    assert reads == ["stage 'naming' reads Shot: Shots: 6 records; such as a Shot"]


def test_it_is_planned(naming, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jclip.cli.configs._load", lambda name: _Loaded(name, lambda: naming))
    assert main(["plan", str(tmp_path / "config.py"), "--no-compile", "--stages.0.data.0.weight", "2"]) == 0
    assert "reads Shot" in capsys.readouterr().out


def test_its_folder_may_move(naming, tmp_path):
    words = load_tokenizer(naming.tokenizer)
    before = identity(naming, words)
    check_same(before, identity(with_stage(naming, data=(Shots("there"),)), words), tmp_path)
    with pytest.raises(OtherConfiguration, match=r"stages\.0\.data\.0\.weight: 1\.0, now 2\.0"):
        check_same(before, identity(with_stage(naming, data=(Shots("here", 2.0),)), words), tmp_path)
