"""The commands of the README's section on fine-tuning: the demo's model and 300 emoji."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The two of the demo's runs that the starting model needs.
START = """
from pathlib import Path
from jclip.configs.demo import common
from jclip.configs.demo.quickstart import demo_runs, prepare
from jclip.train.loop import train

prepare(Path("runs/demo"))
for each in demo_runs(common.Place(), seed=0, length="standard"):
    if each.key in ("english", "chinese_clip"):
        train(each.run, each.workdir)
"""


def python(folder, *words):
    """Runs Python in a folder, compiling as a user's machine does; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_readmes_path(tmp_path, request):
    (tmp_path / "runs" / "demo" / "data").mkdir(parents=True)
    wheels = request.config.cache.mkdir("wheels")  # fetched once for all tests
    (tmp_path / "runs" / "demo" / "data" / "wheels").symlink_to(wheels)
    python(tmp_path, "-c", START)
    reached = []
    for seed in map(str, range(3)):
        python(tmp_path, "-m", "jclip.cli", "data", "example", f"my-{seed}", "--seed", seed)
        words = ("runs/demo/chinese_clip/2-everything", f"my-{seed}/pictures.csv", f"mine-{seed}", "--json")
        found = json.loads(python(tmp_path, "-m", "jclip.cli", "finetune", *words))
        assert found["kept"] == "trained" and found["start"]["t2i_r1"] < 0.25
        reached.append(found["trained"]["t2i_r1"])
    assert sum(reached) / 3 > 0.5
