"""Damaged, malicious and other files give an error that names the file, and execute nothing."""

import io
import os
import pickle
import pickletools
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jclip.errors import JclipError
from jclip.io.inert_pickle import LIMIT
from jclip.io.torch_file import open_torch_file


def archive(file, data=b"\x80\x02}.", **members):
    """Writes a pickle as an archive of the zip format."""
    with zipfile.ZipFile(file, "w") as new:
        for name, content in {"x/data.pkl": data, "x/version": b"3\n", **members}.items():
            new.writestr(name, content)
    return file


def legacy(file, data=b"\x80\x02}."):
    """Writes a pickle as a file of the older format."""
    head = (pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    file.write_bytes(b"".join(head) + data + pickle.dumps([], 2))
    return file


def bare(file, data):
    file.write_bytes(data)
    return file


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(target):
    """Returns pickles that create `target` when `pickle` loads them, each with the name that jclip refuses."""
    touch = f"touch {target}"
    code = f"__import__('os').mkdir({str(target)!r})"
    frozen = f"cos\nsystem\n(X{struct.pack('<I', len(touch)).decode()}{touch}tR.".encode()
    text = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()  # noqa: E731
    return {
        "reduce": (pickle.dumps(Evil(os.system, touch), 2), "posix.system"),
        "nested": (pickle.dumps({"state_dict": [({"a": Evil(os.system, touch)},)]}, 2), "posix.system"),
        "eval": (pickle.dumps(Evil(eval, code), 4), "builtins.eval"),
        "old eval": (pickle.dumps(Evil(eval, code), 2), "__builtin__.eval"),
        "getattr": (pickle.dumps(Evil(getattr, {}, "clear"), 4), "builtins.getattr"),
        "dotted": (b"\x80\x04" + text("builtins") + text("open.__call__") + b"\x93.", "builtins.open.__call__"),
        "stack_global": (b"\x80\x04" + text("os") + text("system") + b"\x93" + text(touch) + b"\x85R.", "os.system"),
        "from_memo": (
            b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x940h\x00h\x01\x93" + text(touch) + b"\x85R.",
            "os.system",
        ),
        "global": (b"\x80\x02" + frozen, "os.system"),
        "through a whitelisted module": (
            b"\x80\x02ctorch._utils\n_import_dotted_name\n.",
            "torch._utils._import_dotted",
        ),
        "module": (b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "torch.nn.modules.linear.Linear"),
        "load": (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        "script class": (b"\x80\x02c__torch__.os\nsystem\n)\x81.", "__torch__.os.system"),
    }


@pytest.mark.parametrize("around", [archive, legacy, bare])
@pytest.mark.parametrize("name", attacks("x"))
def test_pickles_that_run_code_are_refused(tmp_path, name, around):
    data, refused = attacks(tmp_path / "made")[name]
    file = around(tmp_path / "evil.pt", data)
    with pytest.raises(
        JclipError, match=rf"refers to \S*{refused}\S*, which would run code: jclip does not read it"
    ) as caught:
        open_torch_file(file)
    assert str(file) in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_pickle_itself_runs_the_attacks(tmp_path):
    for name in ("reduce", "nested", "eval", "stack_global", "from_memo", "global"):
        pickle.loads(attacks(tmp_path / name)[name][0])
        assert (tmp_path / name).exists(), name


def push(value):
    return pickle.dumps(value, 2)[2:-1]


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Opcodes that `pickle` executes and plain data does not need.
        (b"(ios\nsystem\n.", "uses INST"),
        (b"(cos\nsystem\no.", "refers to os.system"),
        (b"\x82\x01.", "uses EXT1"),
        (b"\x97.", "uses NEXT_BUFFER"),
        (b"Pid\n.", "uses PERSID"),
        (b"ccollections\nOrderedDict\nN}X\x04\x00\x00\x00makeNs\x86b.", "sets the state of an object without one"),
        (b"K\x01K\x02\x93.", "names something that is not a string"),
        (b"K\x01)R.", "calls something that is not a class"),
        (b"ccollections\nOrderedDict\n]R.", "calls something that is not a class"),
        (b"]K\x01K\x02s.", "not a dict"),
        (b"}K\x01a.", "not a list"),
        (b"K\x01Q.", "damaged"),
        (b"X\x01\x00\x00\x00aQ.", "damaged"),
        (b"(X\x06\x00\x00\x00moduleNNtQ.", "damaged"),
        # Empty stacks, missing memos, missing ends.
        (b".", "damaged"),
        (b"a.", "damaged"),
        (b"\x86.", "damaged"),
        (b"t.", "damaged"),
        (b"h\x05.", "damaged"),
        (b"}", "exhausted before seeing STOP"),
        (b"", "exhausted before seeing STOP"),
        (b"\xff", "unknown"),
        (b"X\xff\xff\xff\x7fabc.", "damaged"),
        (b"\x8e" + b"\xff" * 8 + b"abc.", "damaged"),
        # Bombs: memory, time, the C stack.
        (b"})" + b"\x85" * 100_000 + b"Ns.", "uses a tuple as a key"),
        (b"}]Ns.", "uses a list as a key"),
        (b"\x8a\xff" + b"\x7f" * 255 + b".", "more than 128 bits"),
        (b"}q\x00X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u.", "damaged"),
        (b"}q\x00(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u.", "nested too deep or holds too many objects"),
        (push({"a" * 2_000: 1}) + b".", "nested too deep or holds too many"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00idna\x86R.", "another codec"),
        # Impossible tensors.
        (REBUILD + b"(NK\x00))\x89NtR.", "tensor without a storage"),
        (push({"a": "x", "": {}, "b": {"c": 1}, "b.c": 2}) + b".", "two entries named b.c: rename one"),
        (push({"\udc80": 1}) + b".", "surrogates not allowed"),
        (b"}X\x04\x00\x00\x00size" + REBUILD + b"(" + push("x") + b"K\x00))\x89NtRs.", "tensor without a storage"),
    ],
)
def test_invalid_pickles_are_refused(tmp_path, data, message):
    for around in (archive, legacy):
        file = around(tmp_path / around.__name__, b"\x80\x02" + data)
        with pytest.raises(JclipError, match=message) as caught:
            open_torch_file(file)
        assert str(file) in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("data", [b"]" + b"\x85" * 200_000 + b"0}.", b"}r\xff\xff\xff\xff."], ids=["stack", "memory"])
def test_oversized_stacks_and_memos_are_read_without_harm(tmp_path, data):
    for around in (archive, legacy):
        assert open_torch_file(around(tmp_path / "x", b"\x80\x02" + data)).tensors == {}


def test_endless_pickles_are_refused(tmp_path):
    many = b"\x80\x02(" + b"N" * 5_000_001 + b"t."
    with pytest.raises(JclipError, match="too many steps"):
        open_torch_file(archive(tmp_path / "x", many))
    copies = b"\x80\x02" + push(list(range(1000))) + b"q\xff0" + b"ctorch\nSize\nh\xff\x85R0" * 6_000 + b"N."
    with pytest.raises(JclipError, match="too many steps"):
        open_torch_file(archive(tmp_path / "y", copies))
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/data.pkl", bytes(LIMIT + 1))
    with pytest.raises(JclipError, match="more than 64 MiB"):
        open_torch_file(tmp_path / "z")


def saved(file, value, **options):
    torch.save(value, file, **options)
    return file


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_plain_are_refused(tmp_path, new):
    values = {
        "is quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
        "is quantised:": torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8),
        "is sparse": torch.eye(3).to_sparse(),
        "is sparse:": torch.eye(3).to_sparse_csr(),
        "is a conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "is a meta tensor": torch.ones(2, device="meta"),
    }
    for message, value in values.items():
        file = saved(tmp_path / "x.pt", {"a": {"b": value}}, _use_new_zipfile_serialization=new)
        with pytest.raises(JclipError, match=rf"x\.pt: a\.b {message}"):
            open_torch_file(file)
    with pytest.raises(JclipError, match=r"x\.pt holds a single tensor without a name"):
        open_torch_file(saved(tmp_path / "x.pt", torch.ones(2), _use_new_zipfile_serialization=new))
    with pytest.raises(JclipError, match=r"refers to torch\.nn\.modules\.linear\.Linear, which would run code"):
        open_torch_file(saved(tmp_path / "x.pt", torch.nn.Linear(2, 2), _use_new_zipfile_serialization=new))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil": b""}, r"has a member \.\./evil, a path out of the archive"),
        ({"x/../../evil": b""}, r"has a member x/\.\./\.\./evil, a path out"),
        ({"/etc/passwd": b""}, "has a member /etc/passwd, a path out"),
        ({"x\\evil": b""}, "a path out of the archive"),
        ({"C:/evil": b""}, "a path out of the archive"),
        ({"y/data.pkl": b""}, r"two checkpoints, x/data\.pkl and y/data\.pkl"),
        ({"x/byteorder": b"middle"}, "byte order b'middle' is neither"),
    ],
)
def test_archives_that_are_refused(tmp_path, members, message):
    with pytest.raises(JclipError, match=message) as caught:
        open_torch_file(archive(tmp_path / "x.pt", **members))
    assert str(tmp_path / "x.pt") in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_repeated_member_names_are_refused(tmp_path):
    archive(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as more:
        more.writestr("x/data.pkl", b"")
    with pytest.raises(JclipError, match=r"has two members x/data\.pkl"):
        open_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"just text\n", "is not a PyTorch checkpoint"),
        (b"configuration = 3\nmore\n", "is not a PyTorch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"<html>", "a web page"),
        (b"PK\x03\x04" + bytes(100), "is truncated or damaged"),
        (b"PK\x05\x06" + bytes(18), "is not a PyTorch checkpoint"),
        (pickle.dumps({"a": 1}), "is a pickle but not a PyTorch checkpoint"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1000, 2), "is a pickle but not a PyTorch checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(JclipError, match=message) as caught:
        open_torch_file(bare(tmp_path / "file", content))
    assert str(tmp_path / "file") in str(caught.value)


def test_other_archives_and_missing_files_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(JclipError, match=r"is a zip archive but not a PyTorch checkpoint: it has no data\.pkl"):
        open_torch_file(tmp_path / "x.npz")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(JclipError, match="is not a file: check the path"):
            open_torch_file(path)


VALUES = {"a.weight": torch.arange(40.0).reshape(5, 8), "b": torch.arange(7, dtype=torch.int16), "c": torch.tensor(3)}
VALUES["a.turned"] = VALUES["a.weight"].T


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    saved(folder / "zip", VALUES)
    saved(folder / "legacy", VALUES, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(folder / "zip") as old, zipfile.ZipFile(folder / "deflated", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return folder


def test_one_flipped_byte_in_a_tensor_is_noticed(samples):
    data = (samples / "zip").read_bytes()
    place = data.index(VALUES["a.weight"].numpy().tobytes()) + 17
    file = bare(samples / "one", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    found = open_torch_file(file).tensors
    np.testing.assert_array_equal(found["b"].read(), np.arange(7))
    for name in ("a.weight", "a.turned", "a.weight"):
        with pytest.raises(JclipError, match=rf"one: {name}: zip/data/0 is damaged, its checksum does not match"):
            next(found[name].parts())


@pytest.mark.parametrize("kind", ["zip", "deflated", "legacy"])
@given(data=st.data())
def test_truncated_files_are_refused(samples, kind, data):
    content = (samples / kind).read_bytes()
    file = bare(samples / "cut", content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(JclipError, match=str(file)):
        open_torch_file(file)


def read_or_error(file):
    try:
        return {name: (lazy.shape, lazy.read()) for name, lazy in open_torch_file(file).tensors.items()}
    except JclipError as error:
        assert str(file) in str(error)  # noqa: PT017
        assert len(str(error)) < 600  # noqa: PT017
        return None


def flipped(content, flips):
    damaged = bytearray(content)
    for place, mask in flips:
        damaged[place % len(content)] ^= mask
    return bytes(damaged)


FLIPS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", ["zip", "deflated"])
@given(flips=FLIPS)
def test_flipped_bytes_give_an_error_or_the_right_tensors(samples, kind, flips):
    file = bare(samples / "flipped", flipped((samples / kind).read_bytes(), flips))
    found = read_or_error(file)
    if found is not None:
        assert found.keys() == VALUES.keys()
        for name, (_, array) in found.items():
            np.testing.assert_array_equal(array, VALUES[name].numpy())


@given(flips=FLIPS)
def test_flipped_bytes_of_what_has_no_checksum(samples, flips):
    read_or_error(bare(samples / "flipped", flipped((samples / "legacy").read_bytes(), flips)))
    with zipfile.ZipFile(samples / "zip") as old:
        members = {f"x/{name.split('/', 1)[1]}": old.read(name) for name in old.namelist()}
    members["x/data.pkl"] = flipped(members["x/data.pkl"], flips)  # with a checksum that is right
    read_or_error(archive(samples / "wrong", **members))


def test_strides_beyond_the_storage(samples):
    with zipfile.ZipFile(samples / "zip") as old:
        members = {f"x/{name.split('/', 1)[1]}": old.read(name) for name in old.namelist()}
    shape = b"K\x05K\x08\x86"
    assert members["x/data.pkl"].count(shape) == 1
    for wrong in (b"K\x06K\x08\x86", b"K\x05K\xff\x86", b"J\xff\xff\xff\xffK\x08\x86", b"K\x05\x88\x86"):
        data = members["x/data.pkl"].replace(shape, wrong)
        pickletools.dis(data, out=io.StringIO())
        with pytest.raises(JclipError, match=r"a\.weight (reaches beyond its storage|has a shape or strides)"):
            open_torch_file(archive(samples / "strides", **members | {"x/data.pkl": data}))
