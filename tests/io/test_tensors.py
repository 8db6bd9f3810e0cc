"""Safetensors like those of the reference library, read in blocks, and damaged ones."""

import json
import math
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jclip.errors import JclipError
from jclip.io import tensors
from jclip.io.safetensors import open_safetensors, write_safetensors
from jclip.io.tensors import BLOCK, Lazy

NUMPY = ["bool", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8", "i8", "u8", "c8"]
ARRAYS = st.sampled_from(NUMPY).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name != "__metadata__")


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, lazy in found.items():
        array = lazy.read()
        assert (array.shape, array.dtype) == (lazy.shape, lazy.dtype) == (expected[name].shape, expected[name].dtype)
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors")


@given(st.dictionaries(NAMES, ARRAYS, max_size=5), st.dictionaries(NAMES, st.text(max_size=5), max_size=1))
def test_the_bytes_are_those_of_the_library(folder, arrays, metadata):
    file = folder / "ours.safetensors"
    write_safetensors(file, arrays, metadata)
    assert file.read_bytes() == safetensors.numpy.save(arrays, metadata or None)
    same(open_safetensors(file), arrays)


def test_reads_what_torch_wrote_and_writes_what_torch_reads(tmp_path):
    values = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(5, 1).bfloat16(),
        "eight": torch.randn(6).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(77),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
    }
    safetensors.torch.save_file(values, tmp_path / "theirs")
    found = open_safetensors(tmp_path / "theirs")
    assert found["brain"].dtype == ml_dtypes.bfloat16
    assert found["eight"].dtype == ml_dtypes.float8_e4m3fn
    write_safetensors(tmp_path / "ours", found)
    back = safetensors.torch.load_file(tmp_path / "ours")
    assert back.keys() == values.keys()
    for name, value in values.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert back[name].view(torch.uint8).equal(value.view(torch.uint8)) if value.dim() else back[name] == value


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path):
    arrays = {name: np.arange(3, dtype=kind) for name, kind in (("b", "f4"), ("a", "f4"), ("c", "i8"))}
    write_safetensors(tmp_path / "one", arrays, {"x": "1", "y": "2"})
    write_safetensors(tmp_path / "two", dict(reversed(arrays.items())), {"y": "2", "x": "1"})
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_large_tensors_come_in_blocks_and_leave_no_file_open(tmp_path):
    array = np.arange(BLOCK // 4 + 5, dtype=np.int32).reshape(1, -1)
    write_safetensors(tmp_path / "big", {"big": array, "small": array[0, :2]})
    lazy = open_safetensors(tmp_path / "big")["big"]
    before = len(os.listdir("/proc/self/fd"))
    assert [part.size for part in lazy.parts()] == [BLOCK // 4, 5]
    next(lazy.parts())  # given up half way
    assert len(os.listdir("/proc/self/fd")) == before
    np.testing.assert_array_equal(lazy.read(), array)
    np.testing.assert_array_equal(lazy.read(), array)  # each reading starts anew


def test_lazy_of_takes_any_array(tmp_path):
    whole = np.arange(12, dtype=">f4").reshape(3, 4)
    for array in (whole, whole.T, whole[::2, ::-1], np.float32(3.0), np.zeros((2, 0))):
        lazy = Lazy.of(array)
        assert lazy.dtype.isnative
        np.testing.assert_array_equal(lazy.read(), array)
        write_safetensors(tmp_path / "x", {"x": lazy})
        np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "x")["x"], array)


def parts(*arrays):
    return lambda: iter([np.asarray(array, np.float32) for array in arrays])


@pytest.mark.parametrize(
    ("lazy", "message"),
    [
        (Lazy((2, 3), np.dtype("f4"), parts([1, 2], [3, 4, 5])), r"x: .* \(2, 3\) hold only 5 values, not 6"),
        (Lazy((2,), np.dtype("f4"), parts([1], [2, 3], [4])), r"x: .* \(2,\) hold 3 or more values, not 2"),
        (Lazy((2,), np.dtype("f2"), parts([1, 2])), "x: a part of a float16 tensor is float32"),
        (np.zeros(2, np.complex128), "cannot hold x of dtype complex128"),
        (np.array(["text"]), "cannot hold x of dtype <U4"),
    ],
)
def test_writing_a_wrong_tensor_is_a_value_error(tmp_path, lazy, message):
    with pytest.raises(ValueError, match=message) as caught:
        write_safetensors(tmp_path / "file", {"x": lazy})
    assert str(tmp_path / "file") in str(caught.value)
    assert not isinstance(caught.value, JclipError)  # nothing that the user could mend
    if isinstance(lazy, Lazy):
        with pytest.raises(ValueError):
            lazy.read()


def test_a_full_disk_is_an_os_error():
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(tensors.Path("/dev/full"), {"x": np.zeros(BLOCK, np.uint8)})


def with_header(file, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return file


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"x": entry(shape=(3,))}, "entry for x is damaged"),
        ({"x": entry(shape=(-2,))}, "must be whole numbers"),
        ({"x": entry(shape=(True, 2))}, "must be whole numbers"),
        ({"x": entry(shape=(2.0,))}, "must be whole numbers"),
        ({"x": entry(shape="2")}, "must be whole numbers"),
        ({"x": entry(shape=(0, 2**70), offsets=(0, 0))}, "larger than any memory"),
        ({"x": entry(shape=[1] * 70 + [2])}, "larger than any memory"),
        ({"x": entry(offsets=(8, 0))}, "x is damaged"),
        ({"x": entry(offsets=(0, 8, 9))}, "x is damaged"),
        ({"x": entry("F4", (4,), (0, 2))}, "x has dtype F4: jclip reads BOOL, U8"),
        ({"x": entry(["F32"])}, "x is damaged"),
        ({"x": 3}, "x is damaged"),
        ({"x": {"dtype": "F32"}}, "x is damaged"),
        ({"x": entry(), "y": entry()}, "y overlaps another at byte 0"),
        ({"x": entry(offsets=(4, 12))}, "x leaves a hole before byte 4"),
        ({"x": entry(shape=(4,), offsets=(0, 16))}, "truncated: 8 of 16 bytes are missing"),
        ({"x": entry(shape=(1,), offsets=(0, 4))}, "4 bytes at its end belong to no tensor"),
        ({"\ud800": entry()}, "header cannot be read"),
        (b'{"x": 1, "x": 1}', "the name x is repeated"),
        (b'{"x": {"dtype": "F32", "dtype": "F32"}}', "the name dtype is repeated"),
        (b'{"x": ' + b"[" * 100_000, "header cannot be read"),
        (b'{"x": ' + b"9" * 5_000 + b"}", "header cannot be read"),
        (b'{"\xff": 1}', "header cannot be read"),
        (b"[1, 2]", "not a safetensors file"),
        (b"", "damaged"),
    ],
)
def test_a_damaged_header_is_named(tmp_path, header, message):
    file = with_header(tmp_path / "file", header, bytes(8))
    with pytest.raises(JclipError, match=message) as caught:
        open_safetensors(file)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_metadata_is_ignored(tmp_path):
    file = with_header(tmp_path / "file", {"__metadata__": {"format": 3}})
    assert open_safetensors(file) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello", "not a safetensors file: check the path"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        ((2**62).to_bytes(8, "little") + b"{}", "is truncated"),
        (bytes(7), "not a safetensors file"),
        (bytes(8), "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(JclipError, match=message):
        open_safetensors(tmp_path / "file")


def test_a_huge_header_is_not_read(tmp_path):
    with open(tmp_path / "file", "wb") as handle:
        handle.write((100 << 20).to_bytes(8, "little") + b"{")
        handle.truncate(200 << 20)
    with pytest.raises(JclipError, match="header would be 104857600 bytes long"):
        open_safetensors(tmp_path / "file")


def test_a_missing_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent" / "more"):
        with pytest.raises(JclipError, match="is not a file: check the path"):
            open_safetensors(path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    write_safetensors(tmp_path / "file", {"x": np.arange(10)})
    lazy = open_safetensors(tmp_path / "file")["x"]
    os.truncate(tmp_path / "file", (tmp_path / "file").stat().st_size - 1)
    with pytest.raises(JclipError, match="became shorter while it was read"):
        lazy.read()
    (tmp_path / "file").unlink()
    with pytest.raises(JclipError, match="cannot be read"):
        lazy.read()


SAMPLE = safetensors.numpy.save({"a": np.arange(6.0).reshape(2, 3), "b": np.ones((), np.float16)}, {"by": "hand"})


@given(st.integers(0, len(SAMPLE) - 1))
def test_a_truncated_file_is_noticed_when_opened(folder, length):
    (folder / "cut").write_bytes(SAMPLE[:length])
    with pytest.raises(JclipError, match=str(folder / "cut")):
        open_safetensors(folder / "cut")


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_an_error_or_other_tensors(folder, flips):
    data = bytearray(SAMPLE)
    for place, mask in flips:
        data[place] ^= mask
    (folder / "flipped").write_bytes(data)
    try:
        for lazy in open_safetensors(folder / "flipped").values():
            assert lazy.read().nbytes == math.prod(lazy.shape) * lazy.dtype.itemsize
    except JclipError as error:
        assert str(folder / "flipped") in str(error)  # noqa: PT017
