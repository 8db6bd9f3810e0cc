"""The passport holds for what was converted, and for nothing else."""

import json

import numpy as np
import pytest

from conversion.convert import convert
from conversion.importing import Options
from conversion.verify import verify
from jclip.cli import main
from jclip.tensors import open_safetensors, write_safetensors
from tests.conversion import test_families


def quiet(what):
    pass


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    place = tmp_path_factory.mktemp("converted")
    source, options, _ = test_families.chinese_clip_hf(place / "source")
    convert(str(source), place / "bundle", options, quiet)
    return place


def holds(checks):
    return {check.what: check.holds for check in checks}


def test_what_was_converted_verifies(converted, capsys):
    arguments = ["verify", str(converted / "bundle"), str(converted / "source"), "--json"]
    assert main(arguments) == 0
    checks = json.loads(capsys.readouterr().out)
    assert all(check["holds"] for check in checks)
    seen = {check["what"]: check["seen"] for check in checks}
    assert "equal to the bit" in seen["parameters"] and "sha256" in seen["files"]
    assert any("5 layers" in what for what in seen)


def copied(converted, place, change):
    """The converted bundle with one tensor changed."""
    import shutil

    shutil.copytree(converted / "bundle", place)
    tensors = {path: tensor.read() for path, tensor in open_safetensors(place / "parameters.safetensors").items()}
    change(tensors)
    write_safetensors(place / "parameters.safetensors", tensors)
    return place


def test_one_bit_is_noticed(converted, tmp_path):
    def flip(tensors):
        tensors["text/embedding_norm/bias"].view(np.uint8)[0] ^= 1

    checks = verify(copied(converted, tmp_path / "b", flip), [str(converted / "source")], Options(), quiet)
    found = holds(checks)
    assert not found["parameters"] and found["files"]
    assert "text/embedding_norm/bias" in next(check.seen for check in checks if check.what == "parameters")


def test_a_wrong_tower_is_noticed_by_the_comparison(converted, tmp_path):
    def swap(tensors):
        layers = tensors["text/layers/attention/query/kernel"]
        layers[:] = layers[::-1].copy()

    checks = verify(copied(converted, tmp_path / "b", swap), [str(converted / "source")], Options(), quiet)
    assert not holds(checks)["the PyTorch model"]
    assert "text/layers/0" in next(check.seen for check in checks if check.what == "the PyTorch model")


def test_another_tokenizer_is_noticed(converted, tmp_path):
    place = copied(converted, tmp_path / "b", lambda tensors: None)
    file = next((place / "tokenizer").glob("vocab.txt"))
    lines = file.read_text().split("\n")
    lines[6], lines[7] = lines[7], lines[6]
    lines[5:60] = lines[5:60][::-1]
    file.write_text("\n".join(lines))
    assert not holds(verify(place, [str(converted / "source")], Options(), quiet))["tokens and pictures"]
    assert main(["verify", str(place), str(converted / "source")]) == 1


@pytest.mark.parametrize(
    ("change", "other"),
    [
        (lambda record: record["model"]["image"].update(heads=1), "towers"),
        (lambda record: record["model"]["text"].update(layer_norm_eps=1e-3), "towers"),
        (lambda record: record["preprocessing"].update(mean=[0.5, 0.5, 0.5]), "preprocessing"),
        (lambda record: record.update(context_length=9), "context length"),
    ],
)
def test_what_is_in_no_tensor_is_noticed_too(converted, tmp_path, change, other):
    place = copied(converted, tmp_path / "b", lambda tensors: None)
    record = json.loads((place / "config.json").read_text())
    change(record)
    (place / "config.json").write_text(json.dumps(record))
    checks = verify(place, [str(converted / "source")], Options(), quiet)
    assert next(check.seen for check in checks if check.what == "configuration") == f"other {other}"
    assert not holds(checks)["configuration"]
