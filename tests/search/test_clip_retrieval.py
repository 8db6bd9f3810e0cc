"""clip-retrieval's layout, out and in; indexes as sources."""

import os

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from jclip.errors import JclipError
from jclip.search.embedding import ModelSource, Options, embed
from jclip.search.exporting import embed_clip_retrieval
from jclip.search.originals import read_original
from tests.search.embedders import Cells, encoded, expected_vector
from tests.search.test_embedding import embedded, fill, write_tar


def exported(words, folder, model=None, **options):
    return embed_clip_retrieval(ModelSource(lambda: model or Cells()), words, folder, Options(workers=0, **options))


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos", {f"{n}.png": encoded(n) for n in range(5)} | {"copy.png": encoded(0)})


def test_out_and_in_again(tmp_path, photos, monkeypatch):
    monkeypatch.setattr("jclip.search.exporting.ROWS", 4)
    write_tar(photos / "t.tar", {"a.png": encoded(9), "a.txt": "一只猫".encode()})
    report = exported([photos], tmp_path / "features")
    assert (report.folder, report.entries, report.copied) == (tmp_path / "features", 7, 1)
    assert sorted(str(file.relative_to(tmp_path / "features")) for file in (tmp_path / "features").glob("*/*")) == [
        "img_emb/img_emb_0.npy", "img_emb/img_emb_1.npy", "metadata/metadata_0.parquet", "metadata/metadata_1.parquet",
    ]  # fmt: skip
    rows, vectors = [], []
    for number in range(2):  # as clip-retrieval's own back end reads them
        rows += parquet.read_table(tmp_path / f"features/metadata/metadata_{number}.parquet").to_pylist()
        vectors.append(np.load(tmp_path / f"features/img_emb/img_emb_{number}.npy"))
    vectors_nd = np.concatenate(vectors)
    assert (vectors_nd.dtype, vectors_nd.shape, len(rows)) == (np.float16, (7, 12), 7)
    for row, vector_d in zip(rows[:6], vectors_nd[:6], strict=True):
        with open(row["image_path"], "rb") as stream:
            np.testing.assert_array_equal(vector_d, expected_vector(stream.read()))
    assert (rows[6]["caption"], rows[6]["image_path"]) == ("一只猫", str(photos / "t.tar::a.png"))

    model = Cells()
    report, index = embedded(tmp_path / "features", tmp_path / "index", model=model)
    assert (model.calls, report.new, report.copied) == ([], 6, 1)
    entries = list(index.all_entries())
    assert [str(entry.path) for entry in entries] == [row["image_path"] for row in rows]
    np.testing.assert_array_equal(index.vectors_at([entry.vector for entry in entries]), vectors_nd)
    assert (entries[0].width, entries[0].meta, entries[0].origin) == (12, {"format": "PNG"}, "clip-retrieval")
    assert read_original(entries[0]) == encoded(0)
    with pytest.raises(JclipError, match="only its vector was imported"):
        read_original(entries[6])
    again = embed(Cells(), [], tmp_path / "index", update=True, workers=0)
    assert (again.unchanged, again.embedded) == (7, 0)


def write_features(folder, vectors_nd, rows, kind="img_emb", number="0"):
    for name in (kind, "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / kind / f"{kind}_{number}.npy", vectors_nd)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"metadata/metadata_{number}.parquet")
    return folder


def test_what_clip_retrieval_wrote_is_read(tmp_path):
    """float32 of any length, relative paths, more columns, padded numbers, vectors that are not valid."""
    rows = [{"image_path": f"a/{n}.jpg", "caption": f"c{n}", "similarity": 0.5, "url": "u"} for n in range(4)]
    vectors_nd = np.float32([[3] * 12, [0] * 12, [1, np.nan] * 6, [1, -1] * 6])
    write_features(tmp_path / "f", vectors_nd, rows, number="00")
    report, index = embedded(tmp_path / "f", tmp_path / "index")
    entries = list(index.all_entries())
    assert [str(entry.path) for entry in entries] == [f"{tmp_path}/f::a/{n}.jpg" for n in (0, 3)]
    assert [skipped.detail for skipped in report.skipped] == ["its length is 0", "its length is nan"]
    np.testing.assert_allclose(index.vectors_at([0, 1]), np.float64([[1] * 12, [1, -1] * 6]) / 12**0.5, atol=2e-4)
    assert entries[0].meta == {"similarity": 0.5, "url": "u"} and entries[0].text == "c0"

    write_features(tmp_path / "t", vectors_nd[:1], [{"caption": "一只猫"}], kind="text_emb")
    (entry,) = embedded(tmp_path / "t", tmp_path / "texts")[1].all_entries()
    assert (entry.kind, entry.text, entry.hash) == ("text", "一只猫", None)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: write_features(f, np.zeros((1, 5), np.float32), [{"image_path": "a"}]), "vectors of size 5"),
        (lambda f: write_features(f, np.ones((2, 12)), [{"image_path": "a"}]), "has 1 rows, but 2 vectors"),
        (lambda f: write_features(f, np.ones((1, 12)), [{"image_path": "a"}] * 3), "has 3 rows, but 1 vectors"),
        (lambda f: write_features(f, np.ones(12), [{"image_path": "a"}]), "does not hold vectors"),
        (lambda f: write_features(f, np.ones((1, 12), int), [{"image_path": "a"}]), "does not hold vectors"),
        (lambda f: np.save(f / "img_emb/img_emb_0.npy", np.array([{}]), allow_pickle=True), "not a complete .npy"),
        (lambda f: (f / "img_emb/img_emb_0.npy").write_bytes(b"\x93NUMPY"), "not a complete .npy"),
        (lambda f: (f / "metadata/metadata_0.parquet").write_bytes(b"PAR1"), "not a complete Parquet file"),
        (lambda f: (f / "metadata/metadata_0.parquet").unlink(), "has no metadata"),
        (lambda f: (f / "img_emb/img_emb_0.npy").unlink(), "has no files of vectors"),
    ],
)
def test_wrong_features(tmp_path, harm, message):
    folder = write_features(tmp_path / "f", np.ones((1, 12)), [{"image_path": "a"}])
    harm(folder)
    with pytest.raises(JclipError, match=message):
        embed(Cells(), folder, tmp_path / "index", workers=0)
    assert os.listdir(tmp_path) == ["f"]


def test_an_index_is_exported_without_a_model(tmp_path, photos):
    embedded(photos, tmp_path / "index")

    def no_model():
        raise AssertionError("vectors are copied")

    report = embed_clip_retrieval(ModelSource(no_model), [tmp_path / "index"], tmp_path / "f", Options())
    assert (report.unchanged, report.entries, report.embedded) == (6, 6, 0)
    assert np.load(tmp_path / "f/img_emb/img_emb_0.npy").shape == (6, 12)


def test_what_the_layout_cannot_hold(tmp_path, photos):
    (tmp_path / "t.txt").write_text("a cat\n")
    with pytest.raises(JclipError, match="has images and texts"):
        exported([photos, tmp_path / "t.txt"], tmp_path / "f")
    with pytest.raises(JclipError, match="cannot be updated"):
        exported([photos], tmp_path / "f", update=True)
    assert exported([tmp_path / "t.txt"], tmp_path / "f").entries == 1
    assert np.load(tmp_path / "f/text_emb/text_emb_0.npy").shape == (1, 12)
    with pytest.raises(JclipError, match="f exists already"):
        exported([photos], tmp_path / "f")
    assert exported([photos], tmp_path / "g", dry_run=True).entries == 6
    assert sorted(os.listdir(tmp_path)) == ["f", "photos", "t.txt"]


def test_an_interrupted_export_goes_on(tmp_path, photos, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("jclip.search.exporting.write_array", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            exported([photos], tmp_path / "f")
    model = Cells()
    assert exported([photos], tmp_path / "f", model).entries == 6
    assert model.calls == [] and sorted(os.listdir(tmp_path)) == ["f", "photos"]


def test_indexes_are_joined(tmp_path, photos):
    more = fill(tmp_path / "more", {"x.png": encoded(1), "y.png": encoded(11)})
    write_tar(more / "t.tar", {"z.png": encoded(12)})
    _, one = embedded(photos, tmp_path / "one")
    _, two = embedded(more, tmp_path / "two")
    model = Cells()
    _, index = embedded([tmp_path / "one", tmp_path / "two"], tmp_path / "both", model=model)
    assert (len(index), index.vectors, model.calls) == (9, 7, [])
    entries = list(index.all_entries())
    for entry, before in zip(entries, [*one.all_entries(), *two.all_entries()], strict=True):
        assert (entry.path, entry.hash, entry.meta, entry.width, entry.date, entry.container, entry.position) == (
            before.path, before.hash, before.meta, before.width, before.date, before.container, before.position,
        )  # fmt: skip
        np.testing.assert_array_equal(index.vector(entry.vector), expected_vector(read_original(entry)))
    with pytest.raises(JclipError, match="was made with another model"):
        embed(Cells(identity="2" * 64), tmp_path / "one", tmp_path / "other")
    with pytest.raises(JclipError, match="with --orientation apply, not ignore"):
        embed(Cells(), tmp_path / "one", tmp_path / "other", orientation="ignore")
