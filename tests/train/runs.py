"""Helpers for tests of whole runs: reduced recipes, parameters of bundles, a watcher, damaged data."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jclip import rules
from jclip.bundle import load_bundle
from jclip.configs.loading import load_config
from jclip.data.sources.folders import PairFolder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.synthetic import caption
from jclip.data.sources.writing import write_pairs
from jclip.train.logging.sinks import read_journal
from jclip.train.planning.reduced import reduce

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = ("altclip/vit_l_14.py", "chinese_clip/vit_b_16.py")


def reduced(recipe, folder):
    """Returns a recipe at reduced size, whose tokenizer and teacher are in `folder`."""
    return reduce(load_config(str(CONFIGS / recipe)), folder)


def leaves(folder):
    """Returns {path: array} of a bundle's parameters."""
    return rules.paths_of(load_bundle(folder).params)


def assert_same_bundles(ours, theirs):
    """Checks that two runs' bundles are equal to the bit."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = leaves(one), leaves(other)
        assert a.keys() == b.keys()
        for path in a:
            np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def bundles(workdir):
    """Returns the bundles of a finished run, in the order of its stages."""
    return sorted(workdir.glob("[0-9]-*"))


def losses(workdir):
    """Returns (total steps, loss) of every logged step."""
    return [
        (line["total"], line["loss"]) for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "train"
    ]


class Watch:
    """Watcher that keeps steps and records, and calls `act` with each step."""

    def __init__(self, act=lambda step: None):
        self.steps, self.records, self._act = [], [], act

    def stage_begins(self, name, step, steps, *, number=1, count=1, figures=()):
        pass

    def logged(self, record):
        self.records.append(record)

    def stepped(self, step):
        self.steps.append(step)
        self._act(step)


def png(number):
    """Returns an image of noise, encoded as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def holey_pairs(folder):
    """Returns a folder of 48 pairs, of which numbers 29 and 31 have unreadable images."""
    bad = {29: png(29)[:60], 31: b"no picture"}
    write_pairs(folder, (StoredPair(bad.get(n, png(n)), (caption(n),)) for n in range(48)))
    return PairFolder(str(folder))
