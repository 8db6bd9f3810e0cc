"""Only regular files of a bounded size are read, and every folder is listed once."""

import os
import pickle
import signal
import socket
import tracemalloc

import pytest

from jclip.errors import JclipError
from jclip.io.reading import Refused, files_under, open_regular, read_regular


@pytest.fixture(autouse=True)
def _never_hangs():
    signal.alarm(20)
    yield
    signal.alarm(0)


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert [read_regular(tmp_path / name, 5) for name in ("a", "link")] == [b"12345"] * 2
    with open_regular(tmp_path / "a") as stream:
        assert stream.read(2) == b"12"
    with pytest.raises(Refused, match=r"a is a file of more than 4 bytes: name a smaller one") as caught:
        read_regular(tmp_path / "a", 4)
    assert caught.value.reason == "a file of more than 4 bytes"
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker process
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)


def test_special_files_are_named_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for name, kind in (("fifo", "a FIFO"), ("zero", "a device"), ("s", "a socket")):
            with pytest.raises(Refused, match=rf"{name} is {kind}, not a regular file: name a file"):
                read_regular(tmp_path / name, 10)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path / "folder")
    with pytest.raises(OSError):
        open_regular(_loop(tmp_path / "loop"))


def _loop(path):
    path.symlink_to(path.name)
    return path


def test_a_file_that_says_it_is_empty_and_is_not_is_bounded(tmp_path):
    assert os.stat("/proc/self/status").st_size == 0
    (tmp_path / "status").symlink_to("/proc/self/status")
    assert read_regular(tmp_path / "status", 1 << 20).startswith(b"Name:")
    with pytest.raises(Refused, match="more than 9 bytes"):
        read_regular(tmp_path / "status", 9)


def test_memory_is_taken_for_the_file_not_for_the_limit(tmp_path):
    (tmp_path / "a.png").write_bytes(b"123")
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "a.png", 1 << 30) == b"123"
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_loops_end_and_names_are_in_order(tmp_path):
    for name in ("b.png", "a/z.png", ".hidden", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "again").symlink_to("a")
    _loop(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to("no such file")
    found = [str(file.relative_to(tmp_path)) for file in files_under(tmp_path)]
    assert found == [".hidden", "a/z.png", "a.png", "b.png", "loop", "nowhere"]
    (tmp_path / "shut").mkdir(mode=0)
    if os.geteuid():
        with pytest.raises(JclipError, match="shut cannot be read"):
            list(files_under(tmp_path))
