import io
import os

import numpy as np
import pytest
from PIL import Image

from jclip.loading import load
from jclip.search.embedding import embed
from jclip.search.entries import Entry
from jclip.search.index import Index
from jclip.serve.refusals import Refusal
from jclip.serve.thumbnails import SIDE, Thumbnails, original
from tests.serve.services import client_of, drawn, encoded, entry_of, error_of


def test_a_thumbnail_is_the_image(client):
    response = client.get("/thumb/2")
    assert response.headers["content-type"] == "image/jpeg" and response.status_code == 200
    found = Image.open(io.BytesIO(response.content))
    assert found.size == (48, 40)
    assert np.abs(np.asarray(found, np.int16) - np.asarray(drawn(1), np.int16)).mean() < 6


def test_a_client_that_has_it_gets_no_copy(client):
    tag = client.get("/thumb/2").headers["etag"]
    for sent in (tag, f'W/{tag}, "x"'):
        response = client.get("/thumb/2", headers={"If-None-Match": sent})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", tag)
    assert client.get("/thumb/2", headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get("/thumb/3").headers["etag"] != tag


def test_an_original_is_the_file(client, place):
    response = client.get("/image/3")
    assert response.content == (place / "images" / "02.png").read_bytes()
    assert (response.headers["content-type"], response.headers["content-disposition"]) == ("image/png", "inline")
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/thumb/99", "/image/99", f"/thumb/{2**63}", "/thumb/-1", "/image/x", "/thumb/1.0"])
def test_what_is_not_indexed_is_not_sent(client, path):
    assert error_of(client.get(path), 404)["code"] in ("no_entry", "not_found")


@pytest.mark.parametrize(
    "path", ["/thumb/../../etc/passwd", "/page/../app.py", "/page/%2e%2e/app.py", "/thumb//etc/passwd"]
)
def test_paths_do_not_lead_out(client, path):
    assert error_of(client.get(path), 404)["code"] == "not_found"


def replaced(file, how, tmp_path):
    data = file.read_bytes()
    if how == "removed":
        file.unlink()
    elif how == "changed":
        file.write_bytes(data[:-1] + b"!")  # of the same size
    elif how == "a link to another file":
        other = tmp_path / "secret"
        other.write_bytes(b"s" * len(data))
        file.unlink()
        file.symlink_to(other)
    elif how == "a FIFO":
        file.unlink()
        os.mkfifo(file)
    else:
        file.unlink()
        file.mkdir()


@pytest.mark.parametrize("how", ["removed", "changed", "a link to another file", "a FIFO", "a folder"])
def test_a_file_that_is_not_what_was_indexed_is_not_sent(tmp_path, how):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(drawn(1)))
    entry, thumbnails = entry_of(0, file), Thumbnails(10**6, 10)
    assert thumbnails.of(entry, "apply") == thumbnails.of(entry, "apply") and original(entry)
    replaced(file, how, tmp_path)
    for read in (original, lambda entry: thumbnails.of(entry, "apply")):  # although the thumbnail is in memory
        with pytest.raises(Refusal, match="the file of entry 1 is gone or has changed") as refusal:
            read(entry)
        assert refusal.value.status == 404


def test_a_file_that_was_only_touched_is_sent(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(encoded(drawn(1)))
    entry, thumbnails = entry_of(0, file), Thumbnails(10**6, 10)
    first = thumbnails.of(entry, "apply")
    os.utime(file, (1, 1))
    assert thumbnails.of(entry, "apply") == first and original(entry) == file.read_bytes()


def test_thumbnails_are_small_upright_and_on_white(tmp_path):
    file = tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = 6
    file.write_bytes(encoded(drawn(1, (2000, 1000)), "JPEG", exif=exif))
    sizes = [
        Image.open(io.BytesIO(Thumbnails(10**6, 10).of(entry_of(0, file), how))).size for how in ("apply", "ignore")
    ]
    assert sizes == [(SIDE // 2, SIDE), (SIDE, SIDE // 2)]
    file.write_bytes(encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 0))))
    assert Image.open(io.BytesIO(Thumbnails(10**6, 10).of(entry_of(0, file), "apply"))).getpixel((5, 5)) == (255,) * 3


def test_the_memory_of_thumbnails_is_bounded(tmp_path):
    files = [tmp_path / str(number) for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(encoded(drawn(number)))
    entries = [entry_of(0, file) for file in files]
    size = max(len(Thumbnails(10**6, 10).of(entry, "apply")) for entry in entries)
    thumbnails = Thumbnails(3 * size, 10)
    for entry in entries:
        thumbnails.of(entry, "apply")
        assert 0 < thumbnails.held <= 3 * size
    assert thumbnails.held == sum(map(len, thumbnails._kept.values()))
    assert Thumbnails(1, 10).of(entries[0], "apply") == thumbnails.of(entries[0], "apply")


def test_an_image_beyond_the_limit_has_no_thumbnail(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(encoded(drawn(1, (200, 100))))
    with pytest.raises(Refusal, match="megapixels") as refusal:
        Thumbnails(10**6, 0.01).of(entry_of(0, file), "apply")
    assert refusal.value.status == 404


def test_texts_have_no_images():
    with pytest.raises(Refusal, match="entry 7 is not an image"):
        original(Entry(7, 0, "a.txt::1", "text", text="a", hash=b"0" * 16))


def test_images_in_a_tar(tmp_path, place):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(place / "images" / "01.png", "x/01.png")
    embed(load(place / "bundle"), tmp_path / "a.tar", tmp_path / "index", workers=0)
    with Index.open(tmp_path / "index") as index:
        (entry,) = index.all_entries()
        assert original(entry) == (place / "images" / "01.png").read_bytes()
        assert Thumbnails(10**6, 10).of(entry, "apply")
        (tmp_path / "a.tar").write_bytes(bytes((tmp_path / "a.tar").stat().st_size))
        with pytest.raises(Refusal, match="has changed"):
            original(entry)


def test_files_beyond_the_buffer_are_refused(place):
    size = (place / "images" / "02.png").stat().st_size
    with client_of(place, limits=_limits(max_body=100, max_buffer=size - 1)) as client:
        error = client.get("/image/3")
        assert error_of(error, 429)["code"] == "buffer_limit" and error.headers["retry-after"] == "1"
    with client_of(place, limits=_limits(max_body=100, max_buffer=size)) as client:
        for _ in range(3):  # the bytes are given back
            assert client.get("/image/3").status_code == 200


def _limits(**given):
    from jclip.serve.limits import Limits

    return Limits(**given)
