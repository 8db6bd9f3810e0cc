"""The command line as a user sees it: help, results, and short errors with the right exit code."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jclip.cli import main
from jclip.cli.plan import remedy
from jclip.loading import load
from jclip.train.planning.fitting import Fit

CHINESE_CLIP = "configs/chinese_clip/vit_b_16.py"
ALTCLIP = "configs/altclip/vit_l_14.py"


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(_root() / "configs")
    monkeypatch.chdir(tmp_path)


def _root():
    from pathlib import Path

    return Path(__file__).parents[2]


def fails(capsys, *arguments):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) <= 2
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], ("demo", "train", "plan", "eval", "doctor")),
        (["data"], ("import", "split", "inspect", "example")),
        (["eval", "--help"], ("retrieval", "classify", "jclip eval compare OUT_A OUT_B")),
    ],
)
def test_usage_lists_the_commands(arguments, named, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in named) and "{}" not in shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "jclip has no command 'trian': did you mean train?"),
        (["data", "imprt"], "jclip data has no command 'imprt': did you mean import?"),
        (["eval", "retreival"], "jclip eval has no command 'retreival': did you mean retrieval?"),
        (["eval", "poetry", "a", "b"], "jclip eval has no command 'poetry': choose one of retrieval, classify,"),
        (["eval"], "jclip eval: missing: TASK, one of retrieval, classify"),
    ],
)
def test_an_unknown_command(arguments, told, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(told) and captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["demo", "train", "plan", "doctor", "search", "index"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 8


def test_help_after_a_config_lists_its_fields(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", CHINESE_CLIP, "--help"])
    assert stop.value.code == 0
    assert "--stages.1.optimizer.learning-rate" in capsys.readouterr().out


def test_an_unknown_field_is_refused_with_a_suggestion(capsys):
    for command in ("train", "plan"):
        with pytest.raises(SystemExit) as stop:
            main([command, CHINESE_CLIP, "--stages.0.batch-sise", "8"])
        assert stop.value.code == 2
        told = f"jclip {command}: unknown option --stages.0.batch-sise: did you mean --stages.0.batch-size?\n"
        assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--workdirr", "x", CHINESE_CLIP], "train: unknown option --workdirr: did you mean --workdir?"),
        (["train", CHINESE_CLIP, "more"], "train: too many arguments: 'more' is not expected (see jclip train --help)"),
        (["train"], "train: missing: CONFIG (see jclip train --help)"),
        (
            ["train", CHINESE_CLIP, "--stages.0.objective.captions", "x"],
            "train: invalid choice 'x' for argument '--stages.0.objective.cap",
        ),
        (["train", CHINESE_CLIP, "--seed", "one"], "train: Error parsing --seed: invalid literal for int() with base"),
        (["demo", "--quik"], "demo: unknown option --quik: did you mean --quick?"),
        (["doctor", "--zzz"], "doctor: unknown option --zzz: see jclip doctor --help"),
        (["plan", "chinese_clip/finetune", "--sise", "x"], "plan: unknown option --sise: did you mean --size?"),
        (["plan", "chinese_clip/finetune", "--size", "x"], "plan: invalid choice 'x' for argument '--size'."),
    ],
)
def test_bad_usage_is_a_one_line_error(arguments, told, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"jclip {told}") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere.py"], "there is no configuration file nowhere.py: `jclip configs` lists the recipes"),
        (
            ["train", "chinese_clip/vit_b_61"],
            "there is no file and no recipe chinese_clip/vit_b_61: did you mean chinese",
        ),
        (["plan", "vit_b_16"], "there is no file and no recipe vit_b_16: did you mean chinese_clip/vit_b_16?"),
        (
            ["plan", "x"],
            "there is no file and no recipe x: `jclip configs` lists the recipes; your own file ends in .py",
        ),
        (["plan", "chinese_clip/finetune", "--size", "rn50", "--variant", "flip"], "variant flip is for size vit_b_16"),
        (["plan", CHINESE_CLIP, "--stages.0.trains", "imgae/.*", "False", ".*", "True"], "rule 'imgae/.*' matches no"),
        (["plan", CHINESE_CLIP, "--stages.0.trains", ".*", "False"], "stage 'image-frozen' trains nothing"),
        (
            ["plan", CHINESE_CLIP, "--stages.1.trains", "txet/.*", "True", ".*", "False"],
            "trains: rule 'txet/.*' matches",
        ),
        (["plan", CHINESE_CLIP, "--starts-from", "txet/.*", "x", ".*", ""], "starts_from: rule 'txet/.*' matches no"),
        (["plan", CHINESE_CLIP, "--max-replicated", "nan"], "max_replicated is nan, but must be a share, 0 to 1"),
        (["plan", CHINESE_CLIP, "--stages.0.batch-size", "100"], "batch of 100 is not divisible by 8 devices"),
        (
            ["plan", CHINESE_CLIP, "--stages.0.budget.steps", "5"],
            "budget: give exactly one of steps, epochs and examples",
        ),
        (
            ["plan", CHINESE_CLIP, "--mesh.tensor", "8"],
            "replicates 30% of the parameters, above max_replicated=0.05",
        ),
        (["plan", CHINESE_CLIP, "--memory", "0"], "--memory is 0.0; expected a number above 0"),
        (
            ["plan", CHINESE_CLIP, "--memory", "8", "--no-compile"],
            "the compiler's figures: omit --no-compile",
        ),
        (["train", CHINESE_CLIP], "starts_from: bundle bundles/"),
    ],
)
def test_impossible_requests_are_one_line_errors(arguments, message, capsys):
    assert message in fails(capsys, *arguments)


def test_invalid_configs_are_refused(tmp_path, capsys):
    (tmp_path / "wrong.py").write_text("def config():\n    return 3\n")
    assert "config() must return" in fails(capsys, "plan", "wrong.py")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert "broken.py cannot be read: ModuleNotFoundError" in fails(capsys, "plan", "broken.py")


@pytest.mark.filterwarnings("ignore:The field `stages.1.optimizer.schedule`")  # from tyro, before jclip checks the run
def test_a_wrong_word_in_a_config(tmp_path, capsys):
    """Neither Python checks the field nor the command line, for which it is a default."""
    (tmp_path / "cosin.py").write_text(
        "from dataclasses import replace\n"
        "from jclip.configs.chinese_clip import vit_b_16\n"
        "def config():\n"
        "    run = vit_b_16.config()\n"
        "    first, second = run.stages\n"
        "    second = replace(second, optimizer=replace(second.optimizer, schedule='cosin'))\n"
        "    return replace(run, stages=(first, second))\n"
    )
    told = "stages.1.optimizer.schedule is 'cosin', but must be one of 'cosine', 'linear', 'constant'"
    for command in ("plan", "train"):
        assert told in fails(capsys, command, "cosin.py")


def test_plan_as_json(capsys):
    assert main(["plan", ALTCLIP, "--json", "--no-compile"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in stages] == ["teacher", "contrastive"]
    assert stages[0]["steps"] == 238_620
    assert stages[0]["device_step_bytes"] is None


def test_plan_for_people(capsys):
    options = ["--reduced", "--tflops", "0.01", "--memory", "16", "--mesh.tensor", "2"]
    assert main(["plan", "demo/chinese_clip_control", *options]) == 0
    shown = capsys.readouterr().out
    assert "1 still-frozen" in shown
    assert re.search(r"image/\*.* frozen", shown) and re.search(r"text/\*.* trains", shown)
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in shown.splitlines() if line[:1] == "│"}
    assert rows["a step's other memory, per device"].endswith("iB")
    assert rows["fits 16 GiB"] == "yes"
    assert "Parameters over fsdp=1 x tensor=2: " in shown
    assert rows["total time"].endswith("s")
    assert "Published" not in shown


def test_plan_prints_published_figures(capsys):
    assert main(["plan", "chinese_clip/finetune", "--dataset", "coco_cn", "--no-compile"]) == 0
    told = "Published for this recipe, in percent: COCO-CN test split, text to image R@1/5/10 77.0/97.1/99.0, image to"
    assert told in capsys.readouterr().out


def test_plan_says_what_makes_it_fit():
    words = ("--remat", "dots")
    told = remedy(Fit(2**30, (2**31,), words, (2**29,)))
    assert told == "It fits, with 512 MiB per stage, if you add: --remat dots"
    told = remedy(Fit(2**20, (2**31,), words, (2**29,)))
    assert told.startswith("None of the settings tried makes it fit. The least is 512 MiB per stage, with: --remat")
    assert "use more devices" in remedy(Fit(2**20, (2**31,), (), (2**31,)))
    told = remedy(Fit(2**30, (2**31,), words, (2**29,), "Stage 'a' could not be compiled with --mesh.fsdp 8: it died"))
    assert told.splitlines()[1] == "It fits, with 512 MiB per stage, if you add: --remat dots" and "it died" in told


def test_plan_for_more_devices_than_this_machine_has():
    command = [sys.executable, "-m", "jclip.cli", "plan", CHINESE_CLIP, "--reduced", "--no-compile", "--json"]
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    asked = [*command, "--devices", "4", "--mesh.fsdp", "2"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    stage = json.loads(done.stdout)["stages"][0]
    assert stage["devices"] == 4
    assert stage["device_state_bytes"] < 0.6 * stage["state_bytes"]


def test_train_reduced_and_again(capsys, monkeypatch):
    arguments = ["train", "demo/english", "--reduced", "--json", "--workdir", "run"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["finished"]
    assert first["steps"] == 2
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first

    changed = [*arguments, "--stages.0.optimizer.weight-decay", "0.5"]
    assert "stages.0.optimizer.weight_decay: 0.1, now 0.5" in fails(capsys, *changed)
    _evaluate(first["bundles"][-1], capsys, monkeypatch)


def _evaluate(bundle, capsys, monkeypatch):
    """Evaluates the bundle of `test_train_reduced_and_again`, because making another one takes a while."""
    draw = np.random.default_rng(0)
    lines = []
    for number in range(12):
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(f"{number}.png")
        lines.append(f"{number}.png\tred apple {number}")
    with open("pairs.tsv", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    assert main(["eval", "retrieval", bundle, "pairs.tsv", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["tests"][0]
    assert figures["pictures"] == figures["captions"] == 12
    assert figures["t2i_chance_r1"] == pytest.approx(1 / 12)
    assert 0 <= figures["t2i_r1"] <= figures["t2i_r10"] <= 1

    sizes = []

    def loaded(source, *, batch_size):
        sizes.append(batch_size)
        return load(source, batch_size=batch_size)

    monkeypatch.setattr("jclip.cli.eval._common.load", loaded)
    assert main(["eval", "retrieval", bundle, "pairs.tsv", "--json", "--batch-size", "5"]) == 0
    again = json.loads(capsys.readouterr().out)["tests"][0]
    assert {name: again[name] for name in ("t2i_r1", "i2t_r10")} == pytest.approx(
        {name: figures[name] for name in ("t2i_r1", "i2t_r10")}
    )
    assert sizes == [5]
    assert "--batch-size 0 is not possible" in fails(
        capsys, "eval", "retrieval", bundle, "pairs.tsv", "--batch-size", "0"
    )

    assert "is not a bundle" in fails(capsys, "eval", "retrieval", "configs", "pairs.tsv")
    with open("5.png", "wb") as file:
        file.write(b"no picture")
    assert "5.png cannot be read as an image" in fails(capsys, "eval", "retrieval", bundle, "pairs.tsv")
    with open("pairs.tsv", "w", encoding="utf-8") as file:
        file.write("0.png\tred apple\n77.png\tgone\n")
    assert "pairs.tsv, line 2: there is no image 77.png" in fails(capsys, "eval", "retrieval", bundle, "pairs.tsv")


def test_doctor_finds_nothing_wrong_here(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings.keys() == {"python", "packages", "devices", "collectives", "disk"}
    assert "8 x cpu" in findings["devices"]["note"]


def test_doctor_finds_a_full_disk(capsys, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(100, 99, 1))
    assert main(["doctor"]) == 1
    assert "free at least 1 GiB before a run" in capsys.readouterr().out
