"""A model is found under any wrappers; several models are listed; tensors that are left out are named."""

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jclip.cli import main
from jclip.conversion import verify
from jclip.conversion.candidates import count_by_top, find_model, without_wrappers
from jclip.conversion.checkpoint import open_checkpoint
from jclip.conversion.families import FAMILIES
from jclip.conversion.importing import CheckpointOptions, import_model
from jclip.errors import JclipError
from jclip.models.text_encoder import TextEncoderConfig
from tests.conversion import broken, checkpoints

CONFIGS = {
    "chinese-clip": broken.CHINESE_CLIP,
    "cn-clip": broken.RN50,
    "altclip": broken.ALTCLIP,
    "open-clip": broken.CLIP,
    "bert": TextEncoderConfig(broken.BERT),
    "xlm-r": TextEncoderConfig(broken.XLM_R),
}
SHAPES = {name: {key: value.shape for key, value in broken.state(name, CONFIGS[name]).items()} for name in CONFIGS}


def under(prefix, shapes):
    return {prefix + key: shape for key, shape in shapes.items()}


def found(shapes, **said):
    candidate, left_out = find_model(shapes, {}, "x.pt", **said)
    return candidate, left_out


# One model.


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "state_dict.model._orig_mod.",
        "model.",
        "net.clipmodel.",
        "base_model.model.",
        "_forward_module._fsdp_wrapped_module.",
        "0.",
    ],
)
def test_a_model_is_found_under_any_prefix(family, prefix):
    candidate, left_out = found(under(prefix, SHAPES[family]))
    assert (candidate.family.name, candidate.spelt_prefix, left_out) == (family, prefix, {})
    assert candidate.mapped == SHAPES[family].keys() and candidate.complete


WORDS = [
    "model",
    "module",
    "_orig_mod",
    "net",
    "state_dict",
    "ema",
    "student",
    "bert",
    "visual",
    "clip",
    "text_model",
    "0",
]
JUNK = ["epoch_sums", "optimizer.state.0.exp_avg", "rng_state", "head.weight", "classifier.2.bias", "queue.keys"]


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(sorted(CONFIGS)),
    parts=st.lists(st.sampled_from(WORDS), max_size=4),
    inner=st.sampled_from(["", "_orig_mod.", "module."]),
    junk=st.lists(st.sampled_from(JUNK), unique=True),
)
@example(family="cn-clip", parts=["bert", "visual"], inner="", junk=JUNK)
def test_however_it_is_wrapped_the_same_tensors_are_taken(family, parts, inner, junk):
    prefix = "".join(f"{part}." for part in parts)
    wrapped = {re.sub(r"^(\w+)\.", rf"\1.{inner}", key): key for key in SHAPES[family]}
    shapes = {prefix + spelt: SHAPES[family][key] for spelt, key in wrapped.items()}
    candidate, left_out = found({**{f"beside.{name}": (3,) for name in junk}, **shapes})
    assert candidate.family.name == family
    assert {spelt.removeprefix(prefix) for spelt in candidate.names} == wrapped.keys()
    assert left_out.keys() == {f"beside.{name}" for name in junk}


def test_a_model_with_one_compiled_tower_is_found():
    shapes = {key.replace("visual.", "visual._orig_mod."): shape for key, shape in SHAPES["cn-clip"].items()}
    candidate, left_out = found(shapes)
    assert candidate.family.name == "cn-clip" and candidate.spelt_prefix == "" and not left_out


def test_a_classifier_beside_a_bert_is_left_out():
    shapes = under("bert.", SHAPES["bert"]) | {"cls.predictions.bias": (140,), "classifier.weight": (2, 36)}
    candidate, left_out = found(shapes)
    assert (candidate.family.name, candidate.prefix) == ("bert", "")
    assert left_out == {"classifier.weight": "a head, or another part beside the towers"}  # cls.predictions is expected


def test_tensors_left_out_are_named_with_a_reason():
    shapes = under("model.", SHAPES["altclip"]) | {
        "model.head.0.weight": (5, 13),
        "ff_head.bias": (5,),
        "optimizer.state.0.exp_avg": (13,),
        "lr_schedulers.0.x": (1,),
        "sink_temp": (),
    }
    _, left_out = found(shapes)
    assert left_out == {
        "model.head.0.weight": "a head, or another part beside the towers",
        "ff_head.bias": "beside the model's weights",
        "optimizer.state.0.exp_avg": "state of the optimizer or of the training",
        "lr_schedulers.0.x": "state of the optimizer or of the training",
        "sink_temp": "beside the model's weights",
    }
    assert count_by_top(left_out) == "model, ff_head, optimizer, lr_schedulers, sink_temp"


@pytest.mark.parametrize("name", ["logit_bias", "visual.adapter.weight", "bert.encoder.layer.0.lora_like.weight"])
def test_an_unknown_tensor_inside_the_model_is_not_left_out(name):
    """It means another architecture, which the conversion refuses."""
    _, left_out = found(SHAPES["cn-clip"] | {name: (3,)})
    assert left_out == {}


# Several models.

TWO = under("model.", SHAPES["cn-clip"]) | under("ema.module.", SHAPES["cn-clip"])


def test_several_models_are_listed():
    count = len(SHAPES["cn-clip"])
    one = rf"\(Chinese-CLIP \(cn_clip\), {count} tensors\)"
    with pytest.raises(
        JclipError, match=rf"^x.pt holds 2 models: ema\.module\. {one}, model\. {one}: choose one, for example "
    ):
        found(TWO)


@pytest.mark.parametrize(
    ("said", "prefix"),
    [
        ({"key": "ema"}, "ema.module."),
        ({"key": "ema."}, "ema.module."),
        ({"prefix": "ema"}, "ema.module."),
        ({"prefix": "ema.module"}, "ema.module."),
        ({"prefix": "model."}, "model."),
        ({"key": "model", "prefix": ""}, "model."),
    ],
)
def test_the_user_chooses_one_of_several_models(said, prefix):
    candidate, left_out = found(TWO, **said)
    assert candidate.spelt_prefix == prefix and len(left_out) == len(SHAPES["cn-clip"])
    assert all("of another model" in why or why == "outside --key" for why in left_out.values())


def test_a_model_inside_another_is_listed():
    """A student that has its teacher as an attribute."""
    shapes = SHAPES["altclip"] | under("teacher.", SHAPES["open-clip"])
    with pytest.raises(JclipError, match=r"2 models: '' \(AltCLIP .*, teacher\. \(CLIP .*: choose .* --prefix ''"):
        found(shapes)
    assert found(shapes, prefix="")[0].family.name == "altclip"
    assert found(shapes, prefix="teacher")[0].family.name == "open-clip"
    assert found(shapes, family=FAMILIES["altclip"])[0].prefix == ""  # the family decides too


def test_a_complete_model_is_preferred_to_an_incomplete_one():
    part = dict(list(SHAPES["cn-clip"].items())[:-3])
    assert found(under("ema.", part) | under("model.", SHAPES["cn-clip"]))[0].prefix == "model."


def test_unknown_keys_and_prefixes_are_refused():
    with pytest.raises(JclipError, match=r"has no tensors under --key state_dict: it has model, ema$"):
        found(TWO, key="state_dict")
    with pytest.raises(JclipError, match=r"has no model under --prefix 'student': it has ema.module. .*, model. "):
        found(TWO, prefix="student")
    with pytest.raises(JclipError, match="has no model under --prefix 'a': it has none elsewhere either"):
        found({"a.b": (1,)}, prefix="a")


def test_a_text_encoder_inside_an_unknown_model_is_converted_on_request_only():
    """An example is open_clip's CustomTextCLIP, of which only the text tower belongs to a known family."""
    larger = {f"visual.trunk.blocks.{n}.weight": (3,) for n in range(30)} | under("text.transformer.", SHAPES["xlm-r"])
    with pytest.raises(JclipError, match=r"can be converted; beside it are visual \(30 tensors\)\. To convert"):
        found(larger)
    assert found(larger, prefix="text.transformer")[0].family.name == "xlm-r"


# What cannot be read.


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (
            {"base_model.model.text_model.encoder.layer.0.attention.self.query.lora_A.weight": (4, 36)},
            r"an unmerged adapter \(base_model\S+lora_A.weight\): load it on its base model with PEFT, call merge_and",
        ),
        (
            {
                re.sub(r"(self\.query|fc1)\.", r"\1.base_layer.", f"base_model.model.{key}"): shape
                for key, shape in SHAPES["chinese-clip"].items()
            },
            r"base_layer\.\S+ belongs to an unmerged adapter such as LoRA: .* merge_and_unload\(\)",
        ),
        (
            under("model.", SHAPES["open-clip"])
            | {"model.transformer.resblocks.0.mlp.c_fc.lora_B.default.weight": (4,)},
            "lora_B.default.weight belongs to an unmerged adapter",
        ),
        ({"_fsdp_wrapped_module._flat_param": (1000,)}, "holds FSDP's flat parameters: save it with"),
        ({"optimizer_state_dict.single_partition_of_fp32_groups.0": (9,)}, "DeepSpeed's slices .*zero_to_fp32.py"),
        ({f"module.{key}": (0,) for key in SHAPES["cn-clip"]}, "all tensors are empty, as in DeepSpeed's ZeRO"),
        (SHAPES["cn-clip"] | under("module.", SHAPES["cn-clip"]), r"module\.\S+ are two names of one tensor"),
        (
            {"a": (1,), "b": (1,)},
            r"x.pt is not a checkpoint that jclip converts \(it has a, b …\): expected one of",
        ),
    ],
)
def test_unsupported_checkpoints_are_refused(shapes, says):
    with pytest.raises(JclipError, match=says):
        found(shapes)


def test_an_adapter_of_another_model_is_left_out():
    candidate, left_out = found(under("clip.", SHAPES["cn-clip"]) | {"decoder.q.lora_A.weight": (4, 4)})
    assert candidate.prefix == "clip." and list(left_out) == ["decoder.q.lora_A.weight"]


def test_the_search_stops_at_16_models():
    keys = FAMILIES["cn-clip"].signature
    with pytest.raises(JclipError, match=r"holds 16 models"):
        found({f"{number}.{key}": (1,) for number in range(500) for key in keys})


# From files, as their makers write them.


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return checkpoints.cn_clip_model(tmp_path_factory.mktemp("words") / "words", (1, 1, 1, 1))


@pytest.fixture
def vocabulary(tmp_path):
    checkpoints.vocabulary("wordpiece", tmp_path / "words")
    return tmp_path / "words" / "vocab.txt"


class Wrapper(torch.nn.Module):
    """A module like Lightning's, with the model and a head as attributes."""

    def __init__(self, model):
        super().__init__()
        self.clipmodel, self.ff_head = model, torch.nn.Linear(13, 5)


SAVED = {
    "compiled": (lambda model: torch.compile(model).state_dict(), "_orig_mod.", set(), ()),
    "parallel and compiled": (
        lambda model: {"state_dict": torch.nn.DataParallel(torch.compile(model)).state_dict(), "epoch": 3, "name": "x"},
        "state_dict.module._orig_mod.",
        set(),
        ("epoch", "name"),
    ),
    "Lightning": (
        lambda model: {
            "epoch": 3,
            "global_step": 9,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": Wrapper(model).state_dict(),
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [torch.optim.AdamW(model.parameters()).state_dict()],
            "lr_schedulers": [],
            "hyper_parameters": {"lr": 1e-4, "betas": (0.9, 0.98)},
        },
        "state_dict.clipmodel.",
        {"state_dict", "callbacks"},
        ("epoch", "global_step", "pytorch-lightning_version", "optimizer_states", "hyper_parameters"),
    ),
    "DeepSpeed": (
        lambda model: {
            "module": model.state_dict(),
            "buffer_names": ["logit_scale"],
            "optimizer": None,
            "param_shapes": [{key: value.shape for key, value in model.state_dict().items()}],
            "sparse_tensor_module_names": set(),
            "ds_version": "0.14.0",
        },
        "module.",
        set(),
        ("buffer_names", "param_shapes", "ds_version"),
    ),
    "model": (lambda model: {"model": model.state_dict(), "args": {"lr": 1.0}}, "model.", set(), ("args",)),
    "PEFT, merged": (
        lambda model: {f"base_model.model.{key}": value for key, value in model.state_dict().items()},
        "base_model.model.",
        set(),
        (),
    ),
    "a head": (
        lambda model: model.state_dict() | {"classifier.weight": torch.zeros(5, 13), "classifier.bias": torch.zeros(5)},
        "",
        {"classifier"},
        (),
    ),
}


@pytest.mark.parametrize("way", SAVED)
def test_checkpoints_as_training_programs_save_them_are_read(way, model, vocabulary, tmp_path):
    save, prefix, left, ignored = SAVED[way]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile's own, when it is imported
        torch.save(save(model), tmp_path / "saved.pt")
    source = open_checkpoint(str(tmp_path / "saved.pt"))
    assert source.family.name == "cn-clip" and source.prefix == prefix and source.ignored == ignored
    assert {name.partition(".")[0] for name in source.left_out} == left
    assert source.tensors.keys() == model.state_dict().keys()
    ours = import_model(str(tmp_path / "saved.pt"), CheckpointOptions(tokenizer=vocabulary))
    for key, value in model.state_dict().items():
        assert torch.equal(torch.from_numpy(source.tensors[key].read()), value), key
    facts = ours.facts()
    assert facts["prefix"] == prefix and {entry["key"] for entry in facts["tensors"]["dropped"]} >= set(source.left_out)


def test_the_chosen_key_is_printed_recorded_and_verified(model, vocabulary, tmp_path, capsys):
    torch.save({"student": model.state_dict(), "ema": model.state_dict()}, tmp_path / "two.pt")
    arguments = ["convert", str(tmp_path / "two.pt"), str(tmp_path / "dst"), "--tokenizer", str(vocabulary)]
    assert main(arguments) == 1
    assert "holds 2 models: ema. (" in capsys.readouterr().err and not (tmp_path / "dst").exists()
    assert main([*arguments, "--key", "ema"]) == 0
    said = capsys.readouterr().err
    count = len(model.state_dict())
    assert "found under" in said and f"left out: student ({count} tensors)" in " ".join(said.split())
    checks = verify(tmp_path / "dst", [str(tmp_path / "two.pt")], report=lambda what: None)
    assert all(check.holds for check in checks)


def test_wrappers_are_removed_from_keys():
    assert without_wrappers("_orig_mod.module.visual._orig_mod.conv1.weight") == "visual.conv1.weight"


def test_the_given_prefix_is_taken(model, vocabulary, tmp_path):
    one = model.state_dict()
    torch.save({"a": one, "b": one | {"logit_scale": torch.tensor(1.5)}}, tmp_path / "two.pt")
    for prefix, scale in (("a", one["logit_scale"].item()), ("b", 1.5)):
        found = import_model(str(tmp_path / "two.pt"), CheckpointOptions(tokenizer=vocabulary, prefix=prefix))
        facts = found.facts()
        assert facts["prefix"] == f"{prefix}." and facts["options"]["prefix"] == prefix
        assert found.tensors()["logit_scale"].read() == np.float32(scale)
