"""Mapping by tables: values by hand, every key accounted for, and the published number of keys."""

import numpy as np
import pytest

from jclip.bundle import tensor_shapes
from jclip.conversion.candidates import find_model
from jclip.conversion.exporting import depth_keys
from jclip.conversion.families import FAMILIES, detect, family_named
from jclip.conversion.mapping import export_tensors, import_tensors
from jclip.conversion.towers.rows import CONV, DENSE, MappingRow, fused_attention
from jclip.errors import JclipError
from jclip.io.tensors import Lazy
from jclip.models import zoo
from jclip.models.text_encoder import TextEncoderConfig

TABLE = (
    MappingRow("layers/w/kernel", "layer.{i}.w", DENSE),
    MappingRow("patch/kernel", "patch", CONV),
    *fused_attention("attention", "qkv.weight", "qkv.bias", "out"),
    MappingRow("scale", "scale"),
)


def numbers(*shape, first=0, dtype=np.float32):
    return np.arange(first, first + np.prod(shape), dtype=dtype).reshape(shape)


THEIRS = {
    "layer.0.w": numbers(2, 3),
    "layer.1.w": numbers(2, 3, first=10),
    "patch": numbers(1, 2, 1, 2),
    "qkv.weight": numbers(6, 2),
    "qkv.bias": numbers(6),
    "out.weight": numbers(2, 2),
    "out.bias": numbers(2),
    "scale": np.float32(4.5),
}
WANTED = {
    "layers/w/kernel": (2, 3, 2),
    "patch/kernel": (1, 2, 2, 1),
    **{f"attention/{name}/kernel": (2, 2) for name in ("query", "key", "value", "output")},
    **{f"attention/{name}/bias": (2,) for name in ("query", "key", "value", "output")},
    "scale": (),
}


def imported(theirs=THEIRS, dropped=()):
    lazy = {key: Lazy.of(np.asarray(value)) for key, value in theirs.items()}
    return import_tensors(TABLE, WANTED, lazy, dropped=dropped, name_of=lambda key: f"file: {key}")


def test_import_by_hand():
    ours = {path: tensor.read() for path, tensor in imported().tensors.items()}
    np.testing.assert_array_equal(ours["layers/w/kernel"], [[[0, 3], [1, 4], [2, 5]], [[10, 13], [11, 14], [12, 15]]])
    np.testing.assert_array_equal(ours["patch/kernel"], [[[[0], [2]], [[1], [3]]]])
    np.testing.assert_array_equal(ours["attention/key/kernel"], [[4, 6], [5, 7]])  # rows 2 and 3, transposed
    np.testing.assert_array_equal(ours["attention/value/bias"], [4, 5])
    assert ours["scale"] == np.float32(4.5) and ours["scale"].shape == ()


def test_export_inverts_import():
    back = {key: tensor.read() for key, tensor in export_tensors(TABLE, imported().tensors).items()}
    assert back.keys() == THEIRS.keys()
    for key, value in THEIRS.items():
        np.testing.assert_array_equal(back[key], value, strict=True)


def test_every_key_is_accounted_for():
    found = imported(THEIRS | {"x.position_ids": numbers(4)}, dropped=[(r".*position_ids", "a buffer")])
    assert set(found.keys) == set(THEIRS) and found.dropped == {"x.position_ids": "a buffer"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": numbers(1)}, r"file: x is not part of this model"),
        ({"layer.1.w": None}, r"file: layer\.1\.w is missing"),
        ({"layer.1.w": numbers(3, 2)}, r"file: layer\.1\.w has shape \(3, 2\), but this model needs \(2, 3\)"),
        ({"qkv.bias": numbers(6, dtype=np.int64)}, r"file: qkv\.bias is int64, not floating point"),
        ({"out.bias": np.array([1, np.nan], np.float32)}, r"file: out\.bias holds NaN or infinity"),
        ({"layer.0.w": np.full((2, 3), -np.inf, np.float16)}, r"file: layer\.0\.w holds NaN or infinity"),
    ],
)
def test_wrong_tensors_are_named(change, message):
    theirs = {key: value for key, value in (THEIRS | change).items() if value is not None}
    with pytest.raises(JclipError, match=message):
        _ = [tensor.read() for tensor in imported(theirs).tensors.values()]


def test_layers_of_two_dtypes_take_the_wider():
    found = imported(THEIRS | {"layer.0.w": numbers(2, 3, dtype=np.float16)})
    assert found.tensors["layers/w/kernel"].dtype == np.float32


def keys_of(name, family):
    config = TextEncoderConfig(zoo.get_text_encoder(name)) if name in zoo.TEXT_ENCODERS else zoo.get_config(name)
    empty = {path: Lazy(shape, np.dtype(np.float32), lambda: iter(())) for path, shape in tensor_shapes(config).items()}
    return export_tensors(family_named(family).table(depth_keys(config)), empty)


@pytest.mark.parametrize(
    ("name", "family", "count"),
    [
        ("altclip", "altclip", 787),
        ("altclip-m9", "altclip", 787),
        ("altclip-m18", "altclip", 915),
        ("chinese-clip-vit-b-16", "cn-clip", 351),
        ("chinese-clip-vit-l-14", "cn-clip", 495),
        ("chinese-clip-vit-h-14", "cn-clip", 783),
        ("chinese-clip-rn50", "cn-clip", 394 - 55),  # of the published 394, 55 are counters of batch norms
        ("clip-rn50", "openai-clip", 339 - 55 + 12 * 12 + 6),
    ],
)
def test_the_number_of_tensors_is_the_published_one(name, family, count):
    assert len(keys_of(name, family)) == count


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("altclip", "altclip"),
        ("chinese-clip-vit-b-16", "chinese-clip"),
        ("chinese-clip-vit-h-14", "cn-clip"),
        ("chinese-clip-rn50", "cn-clip"),
        ("clip-vit-l-14", "clip"),
        ("clip-vit-h-14", "open-clip"),
        ("xlm-r-large", "xlm-r"),
        ("xlm-r-base", "xlm-r"),
        ("roberta-wwm-large", "bert"),
        ("rbt3", "bert"),
    ],
)
def test_families_are_told_apart_without_a_configuration(name, family):
    shapes = {key: tensor.shape for key, tensor in keys_of(name, family).items()}
    assert detect(shapes, {}).name == family


def test_openai_weights_are_recognised_by_their_archive_or_their_buffers():
    shapes = {key: tensor.shape for key, tensor in keys_of("clip-vit-b-16", "openai-clip").items()}
    assert detect(shapes, {}, torchscript=True).name == "openai-clip"
    assert detect(shapes | {"input_resolution": ()}, {}).name == "openai-clip"


def test_unknown_families_and_checkpoints_are_refused():
    with pytest.raises(JclipError, match="--family 'gpt' is unknown: choose one of altclip, .*bert"):
        family_named("gpt")
    with pytest.raises(
        JclipError, match=r"x is not a checkpoint that jclip converts \(it has a, b …\): expected one of"
    ):
        find_model({"a": (), "b": ()}, {}, "x")
    assert list(FAMILIES) == [family.name for family in FAMILIES.values()]
