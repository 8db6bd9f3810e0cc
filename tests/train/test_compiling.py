"""A step's program does not grow with the depth of the towers, and a second start of a run compiles nothing."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.train.assembled import lowered_step
from tests.train.cluster import ROOT

# Runs a command of jclip, and prints the number of programs that jax needed, and of those that the cache had.
COUNTED = """
import sys
from collections import Counter
import jax
from jclip.cli import main
events = Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
code = main(sys.argv[1:])
print("programs", events["compile_requests_use_cache"], events["cache_hits"])
sys.exit(code)
"""


def of_depth(run, layers):
    towers = {name: replace(getattr(run.model, name), layers=layers) for name in ("image", "text")}
    return replace(run, model=replace(run.model, **towers))


@pytest.mark.parametrize("remat", ["none", "dots", "layers"])
def test_a_program_does_not_grow_with_the_depth(chinese_clip, remat):
    """A stack of more than four layers is one loop (`SHALLOW`)."""
    run = replace(chinese_clip, stages=chinese_clip.stages[1:], remat=remat)
    short, long = (lowered_step(of_depth(run, layers)).as_text().count(" = ") for layers in (5, 24))
    assert long == short > 1000


@pytest.mark.slow
def test_a_compiled_program_does_not_grow_with_the_depth(chinese_clip):
    run = replace(chinese_clip, stages=chinese_clip.stages[1:])
    short, long = (lowered_step(of_depth(run, layers)).compile().as_text().count(" = ") for layers in (5, 24))
    assert long == pytest.approx(short, rel=0.02)


def test_a_second_start_compiles_nothing(tmp_path):
    """The first start fills the cache; the second, in another process and folder, takes every program from it."""
    own = {name: value for name, value in os.environ.items() if "COMPILATION" not in name and "PERSISTENT" not in name}
    flags = " ".join(flag for flag in own["XLA_FLAGS"].split() if "device_count" not in flag)
    environment = own | {"JCLIP_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": flags}
    counts = []
    for name in ("first", "second"):
        command = ["train", "tests/train/toy.py", "--reduced", "--workdir", str(tmp_path / name)]
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        needed, found = done.stdout.splitlines()[-1].split()[1:]
        counts.append((int(needed), int(found)))
    (needed, found), second = counts
    assert needed > found
    assert second == (needed, needed)
