"""Without PyTorch, weights convert and verify, and the comparison is reported as missing."""

import json
import os
import subprocess
import sys

import pytest
import torch

from jclip.cli import main
from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken

# Runs the commands that it reads, one JSON list of arguments per line. Its import finder hides torch, so that torch
# looks uninstalled.
SERVER = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        return None if top in ("torch", "torchvision") else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutTorch if finder is PathFinder else finder for finder in sys.meta_path]
from jclip.cli import main

for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
WHY = 'torch is not installed: pip install "jclip[convert]", then jclip verify'


@pytest.fixture(scope="module")
def without_torch():
    """Runs commands in one process that has no torch; returns the exit code, the output and the errors."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )

    def run(*arguments):
        server.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    yield run
    server.stdin.close()
    server.stdout.close()
    assert server.wait() == 0


def safetensors(folder):
    return broken.write_checkpoint(folder, "chinese-clip", broken.CHINESE_CLIP), []


def pickled(folder):
    """Writes a .pt of cn_clip."""
    folder.mkdir()
    state = broken.state("cn-clip", broken.RN50)
    torch.save(
        {"state_dict": {f"module.{key}": torch.from_numpy(value) for key, value in state.items()}}, folder / "x.pt"
    )
    return folder / "x.pt", ["--tokenizer", broken.write_vocabulary("wordpiece", folder)]


def seen(checks, holds):
    return {check["what"]: check["seen"] for check in checks if check["holds"] is holds}


@pytest.mark.parametrize("make", [safetensors, pickled], ids=lambda make: make.__name__)
def test_weights_convert_and_are_compared_later(make, without_torch, tmp_path, capsys):
    source, options = make(tmp_path / "source")
    bundle = tmp_path / "bundle"
    code, out, error = without_torch("convert", source, bundle, *options, "--json")
    assert code == 0, error
    (said,) = json.loads(out)["sources"]
    assert said["comparison"] == {"compared": False, "why": WHY}
    assert json.loads((bundle / "passport.json").read_text()) == json.loads(out)

    code, out, error = without_torch("verify", bundle, source, "--json")
    assert code == 0, error
    checks = json.loads(out)
    assert seen(checks, None) == {"the PyTorch model": f"not compared: {WHY}"}
    assert seen(checks, False) == {}
    rest = {"files", "keys", "parameters", "configuration", "counts", "tokens and images"}
    assert seen(checks, True).keys() == rest

    # With torch, the comparison is made.
    assert main(["verify", str(bundle), str(source), "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert seen(checks, True).keys() > rest | {"embeddings", "logits"}
    assert len(seen(checks, True)) == len(checks)


def test_the_console_says_that_nothing_was_compared(without_torch, tmp_path):
    """Errors in the parameters are still found."""
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    bundle = tmp_path / "bundle"
    code, _, error = without_torch("convert", source, bundle)
    assert code == 0 and "not compared" in error and "torch is not installed" in error
    code, out, _ = without_torch("verify", bundle, source)
    said = " ".join(out.replace("│", "").split())
    assert code == 0 and "skipped" in said and "not compared: torch is not installed" in said

    file = bundle / "parameters.safetensors"
    tensors = {path: tensor.read() for path, tensor in open_safetensors(file).items()}
    tensors["text/embedding_norm/bias"] += 1
    write_safetensors(file, tensors)
    code, _, error = without_torch("verify", bundle, source)
    assert code == 1 and "fails its checks (parameters: not equal: text/embedding_norm/bias)" in error


def test_compositions_are_compared_later(without_torch, tmp_path):
    clip = broken.write_checkpoint(tmp_path / "clip", "open-clip", broken.CLIP)
    (clip / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"vision_cfg": {"image_size": 30}, "text_cfg": {"heads": 1}}})
    )
    bert = broken.write_checkpoint(tmp_path / "bert", "bert", TextEncoderConfig(broken.BERT))
    code, out, error = without_torch("convert", "--image", clip, "--text", bert, tmp_path / "start", "--json")
    assert code == 0, error
    assert [source["comparison"]["why"] for source in json.loads(out)["sources"]] == [WHY, WHY]
    code, out, error = without_torch("verify", tmp_path / "start", clip, bert, "--json")
    assert code == 0, error
    assert seen(json.loads(out), None).keys() == {"clip: the PyTorch model", "bert: the PyTorch model"}


def test_torch_is_hidden_from_the_process(without_torch, tmp_path):
    """If torch were visible, the tests above would prove nothing."""
    bundle = broken.write_bundle(tmp_path / "bundle", "chinese-clip", broken.RN50)
    code, _, error = without_torch("convert", bundle, tmp_path / "out", "--to", "cn-clip")
    assert code == 1 and error == 'jclip convert: torch is not installed: pip install "jclip[convert]"\n'
