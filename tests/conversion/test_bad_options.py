"""Options that are wrong or do not go together: a short error, and nothing on the disk."""

import json

import pytest
import torch

from jclip.cli import main
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken
from tests.conversion.test_bad_input import ANOTHERS


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--family", "gpt"], "--family 'gpt' is unknown: choose one of altclip, chinese-clip, .*bert"),
        (
            ["--family", "altclip"],
            "not of the family altclip: it has no text_model.trans.* looks like chinese-clip: omit",
        ),
        (["--family", "bert"], "not of the family bert: it has no embeddings.word_embeddings.weight. It looks like"),
        (["--image-size", "33"], "--image-size: 33 is not a multiple of patch_size 10.*: choose another"),
        (["--image-size", "-30"], "--image-size is -30, but must be 1 or more: choose another"),
        (["--image-size", "99999990"], "--image-size: .* more than 256 times as large: choose another"),
        (["--tokenizer", "absent/vocab.txt"], "there is no tokenizer at absent/vocab.txt"),
        (["--to", "hf", "--family", "clip"], "--family does not go with --to: a bundle is written as it is"),
        (["--to", "hf", "--image-size", "0"], "--image-size does not go with --to: a bundle is written as it is"),
        (["--to", "hf", "--seed", "1"], "--seed does not go with --to"),
        (["--seed", "0"], "--seed does not go with SRC alone: it is for --image and --text"),
        (["--image-size", "0"], "--image-size is 0, but must be 1 or more: choose another"),
        (["--family", ""], "--family '' is unknown: choose one of"),
        (["--image", "x"], "--image and --text belong together: give both, or SRC"),
        (["--text", "x"], "--image and --text belong together: give both, or SRC"),
        (["--image", "x", "--text", "y"], r"give DST alone: 2 path\(s\) given"),
        (["--image", "", "--to", "hf"], "--image and --text belong together: give both, or SRC"),
        (
            ["--image", "x", "--text", "y", "--to", "hf"],
            "--to does not go with --image and --text: convert each part first, and name the bundles",
        ),
        (["--image", "x", "--text", "y", "--image-size", "0"], "--image-size does not go with --image and --text: con"),
        (["another"], r"give SRC and DST: 3 path\(s\) given"),
    ],
)
def test_wrong_options_are_refused(options, says, source, tmp_path, refused):
    refused("convert", source, tmp_path / "dst", *options, "--json", says=says)


def test_a_wrong_number_of_paths_is_refused(tmp_path, refused):
    refused("convert", "--json", says=r"give SRC and DST: 0 path\(s\) given")
    refused("convert", tmp_path / "x", "--json", says=r"give SRC and DST: 1 path\(s\) given")
    refused("convert", "", tmp_path / "y", "--json", says="SRC is empty: give a file, a folder, or hf://ORG/NAME")
    refused("convert", "--image", "x", "--text", "y", "--json", says=r"give DST alone: 0 path\(s\) given")
    refused("convert", tmp_path / "x", tmp_path / "y", "--json", says="/x does not exist: give a file, a folder")
    refused("convert", tmp_path, tmp_path / "y", "--json", says="holds no weights: expected model.safetensors")


def test_an_unknown_activation_is_refused(source, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(source), str(tmp_path / "dst"), "--activation", "relu"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "relu" in error and "quick_gelu" in error and "Traceback" not in error


def test_activation_is_refused_where_it_does_not_apply(tmp_path, refused):
    source = broken.write_checkpoint(tmp_path / "source", "bert", TextEncoderConfig(broken.BERT))
    says = "--activation gelu does not apply to .*/config.json: omit it"
    refused.convert(source, "--activation", "gelu", says=says)
    source = broken.write_checkpoint(tmp_path / "dual", "chinese-clip", broken.CHINESE_CLIP)
    says = "--activation gelu does not apply to .*/config.json: omit it"
    refused.convert(source, "--activation", "gelu", says=says)


def test_open_clip_weights_alone_need_an_activation(tmp_path, refused):
    folder = broken.write_checkpoint(tmp_path / "source", "open-clip", broken.CLIP)
    file = folder / "epoch_3.pt"
    state = {f"module.{key}": torch.from_numpy(value) for key, value in broken.state("open-clip", broken.CLIP).items()}
    torch.save({"state_dict": state}, file)
    says = "does not say which activation .*: put open_clip_config.json beside it and name the folder, or give --act"
    refused.convert(file, "--tokenizer", folder / "merges.txt", says=says)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"embed_dim": 512}, f"embed_dim is 512, but the tensors say 13: {ANOTHERS}"),
        ({"vision_cfg": {"width": 768}}, r"vision_cfg\.width is 768, but the tensors say 64"),
        (
            {"vision_cfg": {"head_width": 48}},
            r"vision_cfg\.head_width is 48, which does not divide a width of 64: correct",
        ),
        ({"vision_cfg": {"timm_model_name": "x"}}, r"vision_cfg\.timm_model_name is 'x', which jclip does not support"),
        ({"vision_cfg": [1]}, r"vision_cfg is \[1\], but must be an object"),
        ({"text_cfg": {"heads": 7}}, r"text_cfg\.heads is 7, which does not divide a width of 64: correct it"),
        ({"text_cfg": {"layers": 12}}, r"text_cfg\.layers is 12, but the tensors say 2"),
    ],
)
def test_an_open_clip_config_that_contradicts_the_tensors_is_refused(said, says, tmp_path, refused):
    folder = broken.write_checkpoint(tmp_path / "source", "open-clip", broken.CLIP)
    model = {"vision_cfg": {"layers": 2}, "text_cfg": {"heads": 1}} | said
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    refused.convert(folder, names="/open_clip_config.json", says=says)
