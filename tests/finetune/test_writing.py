"""The written file is a valid configuration for any folder names, and gives the reasons for its choices."""

from dataclasses import replace

import pytest

from jclip.bundle import open_bundle
from jclip.configs.loading import load_config
from jclip.finetune.choices import Wishes, choose
from jclip.finetune.writing import configuration
from jclip.train.checks import check
from tests.cli.small_bundle import write_bundle
from tests.conversion import broken
from tests.finetune.test_choices import B16, DEMO, EIGHT, FEW, GOOD, LAPTOP, MUGE, POOR


def written(place, data, model, machine, start, wishes=Wishes(), bundle=None, converted=False):  # noqa: B008 (frozen)
    bundle = bundle or str(write_bundle(place / "start"))
    plan = choose(data, model, machine, start, wishes)
    text = configuration(
        plan, data, model, machine, bundle=bundle, converted=converted, folder=place / "out" / "data",
        here=place / "out", seed=3, headline="valid/mean_recall",
    )  # fmt: skip
    (place / "out").mkdir(parents=True, exist_ok=True)
    file = place / "out" / "finetune.py"
    file.write_text(text, encoding="utf-8")
    return plan, text, load_config(str(file))


@pytest.mark.parametrize(
    ("data", "model", "machine", "start"),
    [
        (FEW, DEMO, LAPTOP, POOR),
        (FEW, B16, replace(EIGHT, devices=1), GOOD),
        (replace(FEW, train=2_700, pairs=2_700), B16, LAPTOP, GOOD),
        (MUGE, B16, EIGHT, GOOD),
        (replace(MUGE, colours=0.5, one_way=0.5), B16, EIGHT, POOR),
        (replace(FEW, pairs=540), B16, replace(EIGHT, devices=1, memory=4 * 2**30), POOR),
    ],
    ids=["demo", "two-stages", "text-alone", "muge", "no-policy", "remat"],
)
def test_every_plan_becomes_a_run(tmp_path, data, model, machine, start):
    # A file for a large model is checked on a small one: only its text lengths depend on the towers.
    data = replace(data, usual=min(data.usual, 8), longest=min(data.longest, 8))
    plan, text, run = written(tmp_path, data, model, machine, start)
    check(run)
    assert [stage.name for stage in run.stages] == [stage.name for stage in plan.stages]
    for stage, planned in zip(run.stages, plan.stages, strict=True):
        assert stage.batch_size == plan.batch_size and stage.micro_batches == plan.micro_batches
        assert stage.optimizer.learning_rate == planned.learning_rate and stage.budget.epochs == planned.epochs
        assert (stage.optimizer.name == "muon") == plan.muon
        assert bool(stage.cache) == planned.cached
        objective = stage.objective
        assert objective.captions == ("all" if data.pairs > data.train else "one")
        assert max(objective.augmentation.flip, objective.host_augmentation.flip) == (
            0 if planned.cached else plan.flip
        )
        assert (dict(stage.trains).get(r"image/.*") is False) == (not planned.image)
    assert (run.seed, run.dtype, run.patience) == (3, plan.dtype, plan.patience)
    assert run.remat == "auto"  # decided on the devices of the run
    assert run.starts_from == ((".*", str(tmp_path / "start")),)
    assert run.stages[0].data[0].folder == str(tmp_path / "out" / "data")
    assert all(len(line) < 250 for line in text.splitlines())
    for choice in plan.table:
        if choice.name in ("batch", "learning rate", "trains"):
            assert f"# {choice.why}" in text
    names = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("from ")]
    assert all(text.count(name) > 1 for name in names if "," not in name)  # no unused import


@pytest.mark.parametrize("name", ['a"b', "a'b\\n", "a\nimport os", '"""', "{x}", "红[1]#"])
def test_odd_folder_names_are_quoted(tmp_path, name):
    _, _, run = written(tmp_path / name, FEW, DEMO, LAPTOP, POOR)
    assert run.starts_from[0][1] == str(tmp_path / name / "start")
    assert run.tokenizer == str(tmp_path / name / "start" / "tokenizer")
    assert run.stages[0].data[0].folder == str(tmp_path / name / "out" / "data")
    assert run.model == open_bundle(tmp_path / name / "start").config


def test_a_checkpoint_is_converted_wherever_the_file_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JCLIP_CACHE", str(tmp_path / "cache"))
    source = broken.write_checkpoint(tmp_path / "checkpoint", "chinese-clip", broken.CHINESE_CLIP)
    data = replace(FEW, usual=8, longest=8)
    _, text, run = written(tmp_path, data, DEMO, LAPTOP, POOR, bundle=str(source), converted=True)
    assert f'START = str(local_bundle("{source}"))' in text
    folder = run.starts_from[0][1]
    assert folder.startswith(f"{tmp_path}/cache/models/") and run.tokenizer == f"{folder}/tokenizer"
    assert run.model == broken.CHINESE_CLIP
    assert capsys.readouterr().err.count("converting") == 1
