"""What tests of whole runs share: parameters of bundles, a watcher that does something at a step, damaged data."""

import io

import numpy as np
from PIL import Image

from jclip import rules
from jclip.bundle import load_bundle
from jclip.data.sources.folders import PairFolder
from jclip.data.sources.kinds import StoredPair
from jclip.data.sources.synthetic import caption
from jclip.data.sources.writing import write_pairs
from jclip.train.logging.telemetry import read_journal


def leaves(folder):
    """{path: array} of a bundle's parameters."""
    return rules.paths_of(load_bundle(folder).params)


def assert_same_bundles(ours, theirs):
    """Equal to the bit."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = leaves(one), leaves(other)
        assert a.keys() == b.keys()
        for path in a:
            np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def losses(workdir):
    """(steps in all, loss) of every logged step."""
    return [
        (line["total"], line["loss"]) for line in read_journal(workdir / "metrics.jsonl") if line["kind"] == "train"
    ]


class Watch:
    """Keeps the steps it is told of, and calls `act` with each."""

    def __init__(self, act=lambda step: None):
        self.steps, self.records, self._act = [], [], act

    def stage_begins(self, name, step, steps):
        pass

    def logged(self, record):
        self.records.append(record)

    def stepped(self, step):
        self.steps.append(step)
        self._act(step)


def png(number):
    """A picture of noise, as bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def holey_pairs(folder):
    """A folder of 48 pairs, of which 29 and 31 cannot be read."""
    bad = {29: png(29)[:60], 31: b"no picture"}
    write_pairs(folder, (StoredPair(bad.get(n, png(n)), (caption(n),)) for n in range(48)))
    return PairFolder(str(folder))
