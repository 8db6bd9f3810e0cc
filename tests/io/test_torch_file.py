"""Files of torch are read as `torch.load` reads them: archives, the older format, TorchScript."""

import argparse
import collections
import os
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from jclip.errors import JclipError
from jclip.io.tensors import BLOCK
from jclip.io.torch_file import open_torch_file

save_zip = torch.save
save_legacy = partial(torch.save, _use_new_zipfile_serialization=False)
FORMATS = pytest.mark.parametrize("save", [save_zip, save_legacy], ids=["zip", "legacy"])
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def flat(node, name=""):
    """Returns the tensors of nested containers by their dotted names."""
    if isinstance(node, torch.Tensor):
        return {name: node}
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    return {k: v for key, child in items for k, v in flat(child, f"{name}.{key}" if name else str(key)).items()}


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        array = found[name].read()
        assert array.shape == found[name].shape == tuple(tensor.shape), name
        assert str(array.dtype) == str(found[name].dtype) == str(tensor.dtype).removeprefix("torch."), name
        # Through bytes: numpy and torch share no bfloat16.
        plain = tensor.contiguous().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else np.zeros(0, np.uint8)
        assert array.tobytes() == plain.tobytes(), name


@FORMATS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read(tmp_path, save, dtype):
    values = {"matrix": (torch.randn(3, 5) * 9).to(dtype), "scalar": torch.ones((), dtype=dtype)}
    values |= {"empty": torch.zeros(0, 4, dtype=dtype), "nothing": torch.zeros(2, 0, 3, dtype=dtype)}
    save(values, tmp_path / "x.pt")
    same(open_torch_file(tmp_path / "x.pt").tensors, values)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64])
def test_dtypes_that_share_an_untyped_storage(tmp_path, dtype):
    value = torch.arange(12).to(torch.float32).to(dtype)
    save_zip({"x": value, "rest": value[3:]}, tmp_path / "x.pt")
    same(open_torch_file(tmp_path / "x.pt").tensors, {"x": value, "rest": value[3:]})


@FORMATS
def test_views_and_shared_storages(tmp_path, save):
    base = torch.arange(120.0).reshape(4, 5, 6)
    values = {
        "whole": base,
        "tied": base,
        "transposed": base.transpose(0, 2),
        "permuted": base.permute(1, 2, 0).bfloat16(),
        "rows": base[1:3],
        "columns": base[:, 1:4, ::2],
        "one": base[2, 3, 4],
        "flat": base.view(-1)[7:50],
        "axes of one": base[:1].transpose(0, 1),
        "expanded": torch.arange(3.0).expand(4, 2, 3),
        "position_ids": torch.arange(7).expand((1, -1)),
    }
    save(values, tmp_path / "x.pt")
    same(open_torch_file(tmp_path / "x.pt").tensors, values)


@FORMATS
def test_nested_checkpoints_with_prefixes_and_optimizer(tmp_path, save):
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=False))
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    state = collections.OrderedDict((f"module.{key}", value) for key, value in model.state_dict().items())
    saved = {
        "epoch": 3,
        "step": 12_345_678_901,
        "name": "中文",
        "best": 0.25,
        "amp": True,
        "nothing": None,
        "numpy": np.float64(1.5),
        "count": np.int32(7),
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-3, name="x"),
        "seen": {3, 4},
        "raw": b"\xff",
        "rng": np.arange(3),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
    }
    save(saved, tmp_path / "x.pt")
    found = open_torch_file(tmp_path / "x.pt")
    same(found.tensors, flat(torch.load(tmp_path / "x.pt", weights_only=False)))
    assert found.tensors["optimizer.state.0.exp_avg"].shape == (4, 3, 2, 2)
    assert "state_dict.module.1.running_mean" in found.tensors
    expected = {"epoch": 3, "step": 12_345_678_901, "name": "中文", "best": 0.25, "amp": True, "numpy": 1.5, "count": 7}
    expected |= {"args.lr": 1e-3, "args.name": "x", "size.0": 2, "size.1": 3, "device": "cpu"}
    assert expected.items() <= found.values.items()
    assert {"nothing", "seen", "raw", "rng"} & found.values.keys() == set()
    assert found.values["optimizer.param_groups.0.lr"] == 1e-3
    assert found.torchscript is False


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_other_pickle_protocols(tmp_path, save, protocol):
    values = {"a": torch.arange(3), "b": {"c": torch.ones(2, dtype=torch.bfloat16)}}
    save(values, tmp_path / "x.pt", pickle_protocol=protocol)
    same(open_torch_file(tmp_path / "x.pt").tensors, flat(values))


@FORMATS
def test_parameters_buffers_and_tensors_with_attributes(tmp_path, save):
    marked = nn.Parameter(torch.ones(2))
    marked.tag = "mine"
    plain = torch.ones(3)
    plain.tag = "mine"
    values = {"p": nn.Parameter(torch.randn(2, 2)), "b": nn.Buffer(torch.randn(2)), "marked": marked, "plain": plain}
    save(values, tmp_path / "x.pt")
    same(open_torch_file(tmp_path / "x.pt").tensors, values)


@FORMATS
def test_large_tensors_stream(tmp_path, save):
    wide = torch.arange(3 * BLOCK // 8).reshape(3, -1)  # int64: three blocks
    save({"wide": wide, "turned": wide.T}, tmp_path / "x.pt")
    found = open_torch_file(tmp_path / "x.pt").tensors
    before = len(os.listdir("/proc/self/fd"))
    assert [part.nbytes for part in found["wide"].parts()] == [BLOCK] * 3
    assert [part.nbytes for part in found["turned"].parts()] == [BLOCK] * 3
    next(found["wide"].parts())  # given up half way
    assert len(os.listdir("/proc/self/fd")) == before
    same(found, {"wide": wide, "turned": wide.T})


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.BatchNorm1d(4)
        self.input_resolution = 6

    def forward(self, x):
        x = self.conv1(x).mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0, 4.0])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Tower()
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("vocab_size", torch.tensor(49408))
        self.extra = {"a": torch.ones(2)}

    def forward(self, x):
        return self.visual(x) * self.logit_scale


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, and its archives are still what people hold
def test_torchscript(tmp_path, how, half):
    model = Model().eval()
    model.visual.blocks[1].weight = model.visual.blocks[0].weight
    script = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.ones(1, 3, 6, 6))
    script = script.half() if half else script
    torch.jit.save(script, tmp_path / "ViT.pt")
    found = open_torch_file(tmp_path / "ViT.pt")
    assert found.torchscript is True
    expected = torch.jit.load(tmp_path / "ViT.pt").state_dict()
    tensors = {name: tensor for name, tensor in found.tensors.items() if not name.startswith("extra.")}
    same({name: tensors[name] for name in sorted(tensors)}, {name: expected[name] for name in sorted(expected)})
    assert tensors["visual.conv1.weight"].dtype == (np.float16 if half else np.float32)
    assert tensors["input_resolution"].read() == 224
    if how == "script":  # a trace keeps no numbers
        assert found.values["visual.input_resolution"] == 6
        assert "extra.a" in found.tensors


def repacked(source, target, change=lambda name, data: data, compression=zipfile.ZIP_STORED):
    """Copies an archive; `change` returns the data of a member, or None to omit it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def test_deflated_archives(tmp_path):
    values = {"a": torch.arange(100_000.0), "b": torch.arange(6.0).reshape(2, 3).T, "c": torch.zeros(0)}
    save_zip(values, tmp_path / "x.pt")
    found = open_torch_file(repacked(tmp_path / "x.pt", tmp_path / "y.pt", compression=zipfile.ZIP_DEFLATED)).tensors
    assert (tmp_path / "y.pt").stat().st_size < 300_000
    same(found, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.uint8], ids=str)
def test_the_other_byte_order(tmp_path, dtype):
    values = {"a": (torch.arange(30) * 1.5).reshape(5, 6).to(dtype)}
    values["b"] = values["a"][1:, ::2]
    save_zip(values, tmp_path / "x.pt")
    unit = torch.empty((), dtype=dtype).element_size() // (2 if dtype.is_complex else 1)

    def swap(name, data):
        if name.endswith("byteorder"):
            return b"big"
        return np.frombuffer(data, f"u{unit}").byteswap().tobytes() if "/data/" in name else data

    same(open_torch_file(repacked(tmp_path / "x.pt", tmp_path / "y.pt", swap)).tensors, values)


def test_archives_without_byte_order_or_checksums(tmp_path):
    values = {"a": torch.arange(6.0)}
    save_zip(values, tmp_path / "x.pt")
    old = repacked(tmp_path / "x.pt", tmp_path / "y.pt", lambda name, data: None if "byteorder" in name else data)
    same(open_torch_file(old).tensors, values)
    torch.serialization.set_crc32_options(False)
    try:
        save_zip(values, tmp_path / "z.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    same(open_torch_file(tmp_path / "z.pt").tensors, values)


def test_legacy_storage_views(tmp_path):
    # Current torch does not write them. The pickle says ("storage", class, key, device, count, (key, offset, count)).
    base = torch.arange(20.0)
    save_legacy({"base": base}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    whole = b"K\x14Nt"  # 20, None, and the end of the tuple
    assert data.count(whole) == 1
    view = data.replace(whole, b"K\x14(X\x01\x00\x00\x00vK\x05K\x08tt").replace(b"QK\x00K\x14\x85", b"QK\x02K\x04\x85")
    (tmp_path / "y.pt").write_bytes(view)
    same(open_torch_file(tmp_path / "y.pt").tensors, {"base": base[7:11]})
    same(open_torch_file(tmp_path / "y.pt").tensors, torch.load(tmp_path / "y.pt"))
    (tmp_path / "y.pt").write_bytes(view.replace(b"QK\x02K\x04", b"QK\x05K\x04"))
    with pytest.raises(JclipError, match="base reaches beyond its storage"):
        open_torch_file(tmp_path / "y.pt")


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(SIZES, st.data())
def test_any_strides(tmp_path_factory, sizes, data):
    axes = data.draw(st.permutations(range(len(sizes))))
    cuts = [slice(data.draw(st.integers(0, n - 1)), None, data.draw(st.integers(1, 2))) for n in sizes]
    values = {"x": torch.arange(int(np.prod(sizes)))[: int(np.prod(sizes))].reshape(sizes)[tuple(cuts)].permute(axes)}
    file = tmp_path_factory.mktemp("any") / "x.pt"
    data.draw(st.sampled_from([save_zip, save_legacy]))(values, file)
    same(open_torch_file(file).tensors, values)
