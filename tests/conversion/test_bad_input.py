"""Damaged, hostile and wrong input: a short error with the file, the key and the remedy, and nothing on the disk."""

import os
import pickle
import re
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch

from jclip.cli import main
from jclip.conversion.importing import CheckpointOptions, import_model
from jclip.io.safetensors import write_safetensors
from tests.conversion import broken
from tests.conversion.broken import IMAGE_KEY, TEXT_KEY, WEIGHTS, change_json

# Damaged files.


@pytest.mark.parametrize("kept", [0, 5, 200, 0.3, 0.9, -1])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_truncated_files_are_refused(kind, kept, source, tensors, refused):
    file = source / WEIGHTS
    if kind != "safetensors":
        file.unlink()
        file = source / "pytorch_model.bin"
        state = {key: torch.from_numpy(value) for key, value in tensors.items()}
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    refused.convert(
        source, names=f"/{file.name}", says=r"(empty|truncated|damaged|not a (safe|Py)\w+ (file|ch)).*(fetch|check)"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "only a git-lfs pointer to the weights: run `git lfs pull`"),
        (b"<!DOCTYPE html>", "it is a web page: download the file itself"),
        (b"\x10\0\0\0\0\0\0\0{not json}       ", "its header cannot be read .*: fetch it again"),
    ],
)
def test_files_with_other_content_are_refused(content, says, source, refused):
    (source / WEIGHTS).write_bytes(content)
    refused.convert(source, names=f"/{WEIGHTS}", says=says)


def test_a_flipped_bit_in_an_archive_is_refused(source, tensors, refused):
    (source / WEIGHTS).unlink()
    file = source / "clip_cn.pt"
    torch.save({key: torch.from_numpy(value) for key, value in tensors.items()}, file)
    content = bytearray(file.read_bytes())
    content[content.index(tensors[TEXT_KEY].tobytes())] ^= 1
    file.write_bytes(content)
    refused.convert(source, names="/clip_cn.pt", says=rf"{TEXT_KEY}: clip_cn/data/\d+ is damaged, .*: fetch the")


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("index", "says"),
    [
        (
            '{"weight_map": {"a": "model-1.safetensors", "b": "absent.safetensors"}}',
            "absent.safetensors, which is missing: fetch it",
        ),
        ('{"weight_map": {"a": "../x"}}', r"names the file '\.\./x', which is not beside it: fetch the index again"),
        (
            '{"weight_map": {"a": "/etc/passwd"}}',
            "names the file '/etc/passwd', which is not beside it: fetch the index again",
        ),
        ('{"weight_map": {"a": ["x"]}}', "has no weight_map.*: fetch it again"),
        ('{"weight_map": {}}', "holds no tensors: check"),
        ("{}", "has no weight_map.*: fetch it again"),
        ('{"weight', "cannot be read .*: correct it, or fetch it again"),
        ("[" * 100_000, "cannot be read .*: correct it, or fetch it again"),
    ],
)
def test_wrong_shard_indexes_are_refused(index, says, source, refused):
    (source / WEIGHTS).rename(source / "model-1.safetensors")
    (source / INDEX).write_text(index)
    refused.convert(source, says=says)


# Tensors.


def transposed(key):
    return lambda t: t.update({key: t[key].T})


def put(key, value, dtype=np.float32):
    def change(t):
        t[key] = t[key].astype(dtype)
        t[key].flat[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(IMAGE_KEY), f"{IMAGE_KEY} is missing: the file is incomplete"),
        (lambda t: t.pop("text_projection.weight"), "text_projection.weight is missing: the file is incomplete"),
        (lambda t: t.pop("vision_model.embeddings.class_embedding"), "class_embedding is missing: the file is incomp"),
        (lambda t: [t.pop(k) for k in [*t] if ".layer.1." in k], r"config.json: text_config.num_hidden_layers is 2"),
        (
            lambda t: t.update(extra=t["logit_scale"]),
            "extra is not part of this model: it is of another version",
        ),
        (lambda t: t.update({IMAGE_KEY.replace("1", "999999999"): t[IMAGE_KEY]}), "layers.999999999.* is not part"),
        (lambda t: t.update({TEXT_KEY.replace("layer", "layers"): t[TEXT_KEY]}), "two names of one tensor: remove one"),
        (
            transposed(IMAGE_KEY),
            rf"{IMAGE_KEY} has shape \(40, 80\), but this model needs \(80, 40\): the file is damaged",
        ),
        (
            transposed("vision_model.embeddings.patch_embedding.weight"),
            r"vision_config\.image_size is 30, but the tensors say 9",
        ),
        (
            lambda t: t.update({TEXT_KEY: t[TEXT_KEY][:0]}),
            rf"{TEXT_KEY} has shape \(0,\), but this model needs \(36,\)",
        ),
        (lambda t: t.update({TEXT_KEY: t[TEXT_KEY].astype(np.int8)}), f"{TEXT_KEY} is int8, not floating point: use"),
        (put(IMAGE_KEY, np.nan), f"{IMAGE_KEY} holds NaN or infinity: fetch it again"),
        (put(TEXT_KEY, -np.inf), f"{TEXT_KEY} holds NaN or infinity: fetch it again"),
        (put("logit_scale", np.inf, np.float16), "logit_scale holds NaN or infinity: fetch it again"),
        (put("logit_scale", 400), "logit_scale is 400, but must be between -80 and 80: fetch it again"),
        (lambda t: t.clear(), "holds no tensors: check the path"),
    ],
)
def test_wrong_tensors_are_refused(change, says, source, tensors, refused):
    tensors = dict(tensors)
    change(tensors)
    write_safetensors(source / WEIGHTS, tensors)
    refused.convert(source, says=says)


def test_layers_in_float16_and_bfloat16_become_float32(source, tensors):
    tensors = {key: value.astype(np.float16) for key, value in tensors.items()}
    tensors[IMAGE_KEY] = tensors[IMAGE_KEY].astype(ml_dtypes.bfloat16)
    write_safetensors(source / WEIGHTS, tensors)
    kernel = import_model(str(source)).tensors()["image/layers/mlp/fc1/kernel"]
    assert kernel.dtype == np.float32  # which holds both exactly
    np.testing.assert_array_equal(kernel.read()[1], tensors[IMAGE_KEY].astype(np.float32).T)


def test_the_console_shows_progress_and_then_a_one_line_error(source, tensors, tmp_path, capfd):
    tensors = tensors | {IMAGE_KEY: tensors[IMAGE_KEY] * np.float32(np.nan)}
    write_safetensors(source / WEIGHTS, tensors)
    assert main(["convert", str(source), str(tmp_path / "dst")]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.splitlines()[-1].startswith(f"jclip convert: {source / WEIGHTS}: {IMAGE_KEY} holds NaN")
    assert "reading" in err and "writing" in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# config.json.

B_32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
}
ANOTHERS = "use the configuration that belongs to these weights"


@pytest.mark.parametrize(
    ("part", "said", "says"),
    [
        ("vision_config", B_32, rf"vision_config\.hidden_size is 768, but the tensors say 40: {ANOTHERS}"),
        (
            "vision_config",
            {"hidden_act": "relu"},
            r"vision_config\.hidden_act is 'relu', but jclip supports quick_gelu and gelu",
        ),
        (
            "vision_config",
            {"hidden_act": ["gelu"]},
            r"hidden_act is \['gelu'\], but jclip supports quick_gelu and gelu",
        ),
        (
            "vision_config",
            {"layer_norm_eps": 1e-3},
            r"vision_config\.layer_norm_eps is 0\.001, but jclip supports only 1e-05",
        ),
        ("vision_config", {"num_attention_heads": 7}, r"num_attention_heads is 7, which does not divide a width of 40"),
        (
            "text_config",
            {"hidden_act": "gelu_new"},
            r"text_config\.hidden_act is 'gelu_new', but jclip supports only 'gelu'",
        ),
        (
            "text_config",
            {"position_embedding_type": "relative_key"},
            "is 'relative_key', but jclip supports only 'absolute'",
        ),
        ("text_config", {"layer_norm_eps": "x"}, "layer_norm_eps is 'x', but must be a number >= 0 and < 1: correct"),
        ("text_config", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, but must be a number >= 0 and < 1"),
        ("text_config", {"num_attention_heads": None}, "num_attention_heads is None, which does not divide"),
        ("text_config", {"pad_token_id": 1}, r"text_config\.pad_token_id is 1, but jclip supports only 0"),
        ("text_config", {"is_decoder": True}, r"text_config\.is_decoder is True, but jclip supports only False"),
        (None, {"projection_dim": 512}, f"config.json: projection_dim is 512, but the tensors say 13: {ANOTHERS}"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(part, said, says, source, refused):
    change_json(source / "config.json", lambda config: (config[part] if part else config).update(said))
    refused.convert(source, names="/config.json", says=says)


@pytest.mark.parametrize("content", ["{", "[1]", "null", '{"a": ' * 100_000])
def test_an_unreadable_config_is_refused(content, source, refused):
    (source / "config.json").write_text(content)
    refused.convert(
        source, names="/config.json", says="(cannot be read|does not hold a JSON object).*: correct it, or fetch it"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: c["text_config"].pop("num_hidden_layers"),
            r"another model .*: text_model\.\S+ should have shape .* miss",
        ),
        (
            lambda c: c["text_config"].update(initializer_range="x"),
            r"is refused by Chinese-CLIP .* own code \(.*: use",
        ),
    ],
)
def test_config_errors_that_only_the_pytorch_model_notices_are_refused(change, says, source, refused):
    change_json(source / "config.json", change)
    refused.convert(source, names="/config.json", says=says)


@pytest.mark.parametrize("said", ["x", [1], 3, ""])
@pytest.mark.parametrize("part", ["vision_config", "text_config"])
def test_a_part_of_a_config_that_is_not_an_object_is_refused(part, said, source, refused):
    change_json(source / "config.json", lambda config: config.update({part: said}))
    refused.convert(
        source, names="/config.json", says=rf"{part} is {re.escape(repr(said))}, but must be an object: fetch"
    )


def test_an_image_size_that_contradicts_the_tower_is_refused(source, refused):
    file = source / "preprocessor_config.json"
    file.write_text('{"size": {"height": 20, "width": 20}, "do_center_crop": false}')
    says = "images have 20 pixels, but the image tower takes 30: correct it, or choose .* --image-size"
    refused.convert(source, names="/preprocessor_config.json", says=says)
    for size in (20, 30, 50):
        model = import_model(str(source), CheckpointOptions(image_size=size))
        assert model.preprocessing.size == model.config.image.image_size == size
    file.unlink()
    file.mkdir()
    refused.convert(source, names="/preprocessor_config.json", says="is not a file: replace it .*, or move it away")


# Malicious files.


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_runs_code_is_refused(new, tmp_path, refused):
    evil = {"state_dict": {"logit_scale": torch.tensor(1.0), "x": Evil(tmp_path / "made")}}
    torch.save(evil, tmp_path / "evil.pt", _use_new_zipfile_serialization=new)
    refused.convert(tmp_path / "evil.pt", says=r"refers to (posix|nt)\.mkdir, which would run code: .*state_dict\(\)")
    pickle.loads(pickle.dumps(Evil(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()  # it does run code when pickle loads it


@pytest.mark.parametrize("name", ["archive/../../evil", "../evil", "/tmp/evil"])
def test_a_member_outside_the_archive_is_refused(name, tmp_path, refused):
    torch.save({"logit_scale": torch.tensor(1.0)}, tmp_path / "evil.pt")
    with zipfile.ZipFile(tmp_path / "evil.pt", "a") as archive:
        archive.writestr(name, b"evil")
    refused.convert(tmp_path / "evil.pt", says=rf"has a member {re.escape(name)}, a path out of the archive: jclip")


# Tokenizers.


def test_wrong_tokenizers_are_refused(source, tmp_path, refused):
    dst = tmp_path / "dst"
    merges = broken.write_vocabulary("clip_bpe", tmp_path)
    says = f"{merges} is a clip_bpe vocabulary, .* uses wordpiece: give the model's own with --tokenizer"
    refused("convert", source, dst, "--tokenizer", merges, "--json", says=says)
    long = tmp_path / "vocab.txt"
    long.write_text((source / "vocab.txt").read_text() + "".join(f"more{n}\n" for n in range(600)))
    says = rf"{long} has \d+ tokens, but the model has 140 token embeddings: it is another model's vocabulary. Fetch"
    refused("convert", source, dst, "--tokenizer", long, "--json", says=says)
    cut = (source / "vocab.txt").read_text().split("\n")[:100]
    long.write_text("\n".join(cut))
    says = (
        f"{long} has 100 tokens, but the model has 140 token embeddings: it is cut off, or .*. Fetch it again, or give"
    )
    refused("convert", source, dst, "--tokenizer", long, "--json", says=says)
    (source / "vocab.txt").unlink()
    refused.convert(source, says="comes without its vocabulary: give --tokenizer")
    for content in (b"", b"\xff\xfe", b"[PAD]\n[PAD]\n"):
        long.write_bytes(content)
        refused("convert", source, dst, "--tokenizer", long, "--json", says=str(long))
    (source / "tokenizer.json").write_text("{}")
    refused.convert(
        source, names="/tokenizer.json", says=r"cannot be read .*\(it has no 'model'\): correct it, or fetch it"
    )
