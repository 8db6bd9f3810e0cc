"""Destinations that exist, are full or read-only, and interrupted commands: nothing is left behind."""

import re
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

import jclip.cli.convert
from jclip.bundle import load_bundle, save_bundle
from jclip.cli import main
from jclip.conversion import export
from jclip.conversion.families import family_named
from jclip.conversion.vocabulary import packaged_vocabulary
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from jclip.io.files import whole_file, whole_folder
from jclip.io.safetensors import write_safetensors
from jclip.models.text_encoder import TextEncoderConfig
from jclip.tokenizers.text import wordpiece
from tests.conversion import broken
from tests.conversion.broken import TEXT_KEY, WEIGHTS, change_json, listing, started

ENCODER = TextEncoderConfig(broken.BERT)


# Destinations.


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles")
    models = {"resnet": broken.RN50, "altclip": broken.ALTCLIP, "encoder": ENCODER, "odd": broken.CHINESE_CLIP}
    models["reduced"] = replace(broken.RN50, text=broken.BERT)
    for name, config in models.items():
        family = "altclip" if name == "altclip" else "chinese-clip"
        broken.write_bundle(place / name / "bundle", family, config)
    return place


@pytest.mark.parametrize(
    ("name", "to", "says"),
    [
        ("resnet", "hf", "transformers has no CLIP with a ResNet and a BERT: write this one with --to cn-clip"),
        ("encoder", "hf", "has no image tower, which --to needs: compose it with --image and --text"),
        ("encoder", "cn-clip", "has no image tower, which --to needs: compose it"),
        ("altclip", "cn-clip", "cn_clip has no model with an XLM-R and a head: write this one with --to hf"),
        (
            "odd",
            "cn-clip",
            "cn_clip's BERT has .*, and this one has 1e-12 and heads of 12: write this one with --to hf",
        ),
        (
            "reduced",
            "cn-clip",
            "heads of 64 .* of 12; --to hf cannot write it either .*has no CLIP with a ResNet and a BERT.: it stays",
        ),
        (
            "reduced",
            "hf",
            "has no CLIP with a ResNet and a BERT; --to cn-clip cannot write it either .*heads of 12.: it stays",
        ),
    ],
)
def test_models_without_an_export_format_are_refused(name, to, says, bundles, tmp_path, refused):
    bundle = bundles / name / "bundle"
    assert str(bundle) in refused("convert", bundle, tmp_path / "dst", "--to", to, "--json", says=says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"preprocessing": Preprocessing(64, mean=(0.5, 0.5, 0.5), resize="crop")},
            r"cn_clip squashes images .* has mean \(0.5, 0.5, 0.5\), resize crop; --to hf cannot .* it stays",
        ),
        ({"tokenizer": "bert"}, "cn_clip tokenizes text with its own vocabulary and rules, and this model has others"),
        (
            {"tokenizer": "shuffled"},
            "cn_clip tokenizes text with its own vocabulary and rules, and this model has others",
        ),
    ],
)
def test_models_whose_inputs_cn_clip_would_prepare_differently_are_refused(change, says, tmp_path, refused):
    size = len(_cn_clip_vocabulary())
    config = replace(broken.RN50, text=replace(broken.RN50.text, vocab_size=size))
    bundle = load_bundle(broken.write_bundle(tmp_path / "bundle", "chinese-clip", config))
    words = wordpiece(_cn_clip_vocabulary())
    tokenizers = {"bert": words.as_kind("bert"), "shuffled": wordpiece([*words.tokens[:-2], *words.tokens[:-3:-1]])}
    good = replace(bundle, tokenizer=words)
    save_bundle(good, tmp_path / "good")
    export(tmp_path / "good", tmp_path / "good.pt", "cn-clip")
    save_bundle(
        replace(good, **{name: tokenizers.get(value, value) if name == "tokenizer" else value
                         for name, value in change.items()}),
        tmp_path / "bad",
    )  # fmt: skip
    refused("convert", tmp_path / "bad", tmp_path / "dst", "--to", "cn-clip", "--json", says=says)


def _cn_clip_vocabulary():
    return packaged_vocabulary(family_named("cn-clip")).read_text(encoding="utf-8").split("\n")[:-1]


def test_converting_a_bundle_is_refused(bundles, tmp_path, refused):
    refused(
        "convert", bundles / "odd" / "bundle", tmp_path / "dst", "--json", says="is a bundle already: .*give --to hf"
    )


@pytest.mark.parametrize("what", ["a file", "a folder", "a link to nowhere"])
def test_an_existing_destination_is_refused(what, whole, bundles, tmp_path, refused):
    place = tmp_path / "dst"
    if what == "a file":
        place.write_text("mine")
    elif what == "a folder":
        (place / "inside").mkdir(parents=True)
    else:
        place.symlink_to("nowhere")
    says = f"{place} exists already: move it away, or choose another name"
    refused("convert", whole, place, "--json", says=says)
    refused("convert", "--image", whole, "--text", whole, place, "--json", says=says)
    refused("convert", bundles / "altclip" / "bundle", place, "--to", "hf", "--json", says=says)
    refused("convert", bundles / "resnet" / "bundle", place, "--to", "cn-clip", "--json", says=says)


OUT = {"in": ("", []), "hf": ("altclip", ["--to", "hf"]), "cn-clip": ("resnet", ["--to", "cn-clip"])}


@pytest.mark.parametrize("way", OUT)
def test_a_read_only_destination_is_refused(way, whole, bundles, tmp_path, refused):
    name, options = OUT[way]
    source = bundles / name / "bundle" if name else whole
    with broken.read_only(tmp_path / "disk"):
        says = r"disk/new/dst cannot be made \(.*\): choose another place"
        refused("convert", source, tmp_path / "disk" / "new" / "dst", *options, "--json", says=says)


@pytest.mark.parametrize("short", ["of everything", "in the middle", "of one page"])
@pytest.mark.parametrize("way", OUT)
def test_a_full_disk_is_an_error_and_leaves_nothing(way, short, whole, converted, bundles, tmp_path, refused):
    name, options = OUT[way]
    source = bundles / name / "bundle" if name else whole
    if name:
        assert main(["convert", str(source), str(tmp_path / "once"), *options, "--json"]) == 0
    made = tmp_path / "once" if name else converted
    files = [made] if made.is_file() else [file for file in made.rglob("*") if file.is_file()]
    pages = sum(-(-file.stat().st_size // 4096) for file in files)
    room = {"of everything": 1, "in the middle": pages // 2, "of one page": pages - 1}[short]
    with broken.full(tmp_path / "disk", 4096 * room):
        says = r"disk/new/dst cannot be written \(.*\): free some space, or choose another place"
        refused("convert", source, tmp_path / "disk" / "new" / "dst", *options, "--json", says=says)


# Interruptions.


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A BERT with 200 MB of token-type embeddings, so that writing it takes a while."""
    place = broken.write_checkpoint(tmp_path_factory.mktemp("large") / "source", "bert", ENCODER)
    state, types = broken.state("bert", ENCODER), "embeddings.token_type_embeddings.weight"
    write_safetensors(place / WEIGHTS, state | {types: np.zeros((1_400_000, 36), np.float32)})
    change_json(place / "config.json", lambda config: config.update(type_vocab_size=1_400_000))
    return place


def stopped(large, folder, moment, how):
    """Starts a conversion, stops it while it writes or compares, and returns its exit code and errors."""
    process = started("convert", large, folder / "new" / "dst", "--json")
    last = {"writing": "parameters.safetensors", "comparing": "config.json"}[moment]
    while not list(folder.glob(f"new/.dst.*.partial/{last}")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    time.sleep(0.05 if moment == "writing" else 1)
    process.send_signal(how)
    return process.wait(), process.communicate()[1]


@pytest.mark.parametrize("moment", ["writing", "comparing"])
def test_an_interrupted_conversion_leaves_nothing(moment, large, tmp_path):
    code, error = stopped(large, tmp_path, moment, signal.SIGINT)
    assert code == 130 and error.split() == ["jclip", "convert:", "stopped"]
    assert listing(tmp_path) == {}


def test_a_killed_conversion_can_be_run_again(large, whole, tmp_path):
    assert stopped(large, tmp_path, "writing", signal.SIGKILL)[0] == -signal.SIGKILL
    (left,) = (tmp_path / "new").iterdir()
    assert re.fullmatch(r"\.dst\.\w+\.\w+\.partial", left.name)
    assert main(["convert", str(whole), str(tmp_path / "new" / "dst"), "--json"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["dst"]


def test_ctrl_c_in_a_garbage_collection_is_not_lost(tmp_path, capsys, monkeypatch):
    class Lost:
        def __del__(self):
            raise KeyboardInterrupt

    def main_of_convert(arguments):
        Lost()
        time.sleep(30)
        return 0

    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(jclip.cli.convert, "main", main_of_convert)
    assert main(["convert"]) == 130
    signal.signal(signal.SIGINT, usual)
    assert capsys.readouterr().err == "\njclip convert: stopped\n"


def test_of_two_writers_the_first_to_finish_gets_the_name(tmp_path):
    with whole_folder(tmp_path / "dst", replace=False) as first:
        with whole_folder(tmp_path / "dst", replace=False) as second:
            (second / "second").touch()
        assert first.is_dir()
        (tmp_path / "dst" / "second").rename(tmp_path / "dst" / "seen")
        with pytest.raises(JclipError, match="exists already"), whole_file(tmp_path / "dst"):
            pass
        (tmp_path / "dst").rename(tmp_path / "elsewhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dst", "elsewhere"]


# Verification.


def test_verify_refuses_wrong_bundles_and_sources(whole, converted, bundles, tmp_path, refused):
    refused(
        "verify", bundles / "odd" / "bundle", whole, says="bundle has no passport.json: it was trained, not converted"
    )
    refused("verify", tmp_path, whole, says="is not a bundle: it has no config.json")
    refused("verify", converted, whole, whole, says=r"was converted from .*source: give 1 source\(s\), in this order")
    refused("verify", converted, tmp_path, says="holds no weights: expected")
    copy = shutil.copytree(converted, tmp_path / "copy")
    damages = (
        lambda p: p.pop("sources"),
        lambda p: p.update(format=1),  # of an earlier version
        lambda p: p["sources"][0].pop("name"),
        lambda p: p["sources"][0].pop("files"),
        lambda p: p["sources"][0].update(role="text"),
        lambda p: p["preprocessing"].update(normalised=["x"]),
    )
    for damage in damages:
        change_json(copy / "passport.json", damage)
        refused(
            "verify",
            copy,
            whole,
            says="copy/passport.json is damaged or of another version: convert the checkpoint again",
        )
        shutil.copy(converted / "passport.json", copy)
    change_json(copy / "passport.json", lambda p: p["sources"][0]["options"].update(image_size="large"))
    refused("verify", copy, whole, says=r"copy/passport.json: options\.image_size is 'large', but must be int")
    (copy / "passport.json").write_text("{")
    refused("verify", copy, whole, says=r"copy/passport.json cannot be read \(.*\): correct it, or fetch it again")


def test_verify_fails_against_another_checkpoint(converted, source, tensors, refused):
    other = tensors | {TEXT_KEY: tensors[TEXT_KEY].copy()}
    other[TEXT_KEY].view(np.uint8)[0] ^= 1
    write_safetensors(source / WEIGHTS, other)
    says = (
        rf"{converted} fails its checks \(files: changed since the conversion: model\.safetensors; parameters: not "
        r"equal: text/layers/mlp_norm/bias\): convert it again, or give the SRC of its conversion"
    )
    refused("verify", converted, source, says=says, printed=True)
    refused("verify", converted, source, "--json", says=says, printed=True)
