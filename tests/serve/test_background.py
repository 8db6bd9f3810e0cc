import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.testclient import TestClient

from jclip.errors import JclipError
from jclip.search.embedding import embed
from jclip.search.index import Index
from jclip.search.progress import Meter
from jclip.serve.app import Settings, make_app
from jclip.serve.background import Job, QueuedModel
from jclip.serve.batching import Batcher
from jclip.serve.gallery import Gallery
from tests.serve.services import LOCAL, TOLERANCE, drawn, encoded, error_of, wait_until_warm


def write_images(folder, numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number}.png").write_bytes(encoded(drawn(number)))


def until_idle(client):
    seen = []
    while True:
        seen.append(client.get("/progress").json())
        if seen[-1]["state"] == "idle":
            return seen
        time.sleep(0.02)


def test_an_index_is_made_while_the_service_runs(tmp_path, model):
    write_images(tmp_path / "images", range(5))
    (tmp_path / "images" / "damaged.png").write_bytes(b"no image")
    app = make_app(model, Settings(batch=4), Gallery(tmp_path / "index", model), [str(tmp_path / "images")])
    with TestClient(app, LOCAL) as client:
        first = client.post("/search", json={"text": "a"})
        if first.status_code != 200:
            assert error_of(first, 503)["code"] == "no_index_yet" and first.headers["retry-after"] == "5"
        seen = until_idle(client)
        assert seen[-1] | {"rate": 0.0} == {
            "state": "idle", "done": 6, "total": 6, "rate": 0.0, "seconds_left": None, "skipped": 1, "entries": 5,
            "error": None,
        }  # fmt: skip
        hits = client.post("/search", json={"text": "a", "k": 9}).json()["hits"]
        assert len(hits) == 5 and client.get("/info").json()["index"] == {"entries": 5, "name": "index"}
    with Index.open(tmp_path / "index") as index:
        index.check_model(model)
        wanted = model.encode_image([drawn(number) for number in range(5)])
        np.testing.assert_allclose(index.vectors_at(range(5)), wanted, atol=1e-3)  # float16


def test_an_index_that_is_being_made_can_be_searched(tmp_path, model, monkeypatch):
    monkeypatch.setattr("jclip.search.snapshots._SECONDS", 0)
    monkeypatch.setattr("jclip.search.encoding.Meter", partial(Meter, interval=0))
    monkeypatch.setattr("jclip.search.embedding.embed", partial(embed, batch_size=2))
    write_images(tmp_path / "images", range(8))
    gallery = Gallery(tmp_path / "index", model)
    seen, opens = [], gallery.open

    def opened(snapshot=None):
        opens(snapshot)
        seen.append((snapshot, len(gallery.index), found()))

    gallery.open = opened
    with TestClient(make_app(model, Settings(batch=2), gallery, [str(tmp_path / "images")]), LOCAL) as client:

        def found():
            hits = client.post("/search", json={"text": "a", "k": 99}).json()["hits"]
            assert all(client.get(f"/thumb/{hit['id']}").status_code == 200 for hit in hits[:1])
            return len(hits)

        assert until_idle(client)[-1]["entries"] == 8
    assert all(entries == hits for _, entries, hits in seen)
    assert seen[-1][:2] == (None, 8) and len(seen) > 1 and seen[0][0].parent.name == ".index.unfinished"


def test_an_index_is_updated_and_stays_usable(tmp_path, model):
    write_images(tmp_path / "images", range(3))
    embed(model, tmp_path / "images", tmp_path / "index", workers=0)
    write_images(tmp_path / "images", range(3, 5))
    gallery = Gallery(tmp_path / "index", model)
    gallery.open()
    with TestClient(make_app(model, Settings(batch=4), gallery, [str(tmp_path / "images")]), LOCAL) as client:
        assert len(client.post("/search", json={"text": "a"}).json()["hits"]) in (3, 5)
        assert until_idle(client)[-1]["entries"] == 5
        assert len(client.post("/search", json={"text": "a"}).json()["hits"]) == 5


def test_a_source_that_does_not_exist_is_reported(tmp_path, model, caplog):
    app = make_app(model, Settings(batch=1), Gallery(tmp_path / "index", model), [str(tmp_path / "nothing")])
    with TestClient(app, LOCAL) as client:
        last = until_idle(client)[-1]
        assert last["error"] == "embedding failed: the service's log says why" and last["entries"] == 0
        assert client.post("/embed", json={"inputs": "a"}).status_code == 200
        assert error_of(client.post("/search", json={"text": "a"}), 503)
    assert f"--embed: {tmp_path / 'nothing'}" in caplog.text


@pytest.fixture
def batcher(model):
    found = Batcher(model, 4, lambda *each: None)
    found.start()
    yield found
    if found._thread.is_alive():
        found.stop()


def test_a_queued_model_is_the_model(batcher, model):
    queued = QueuedModel(model, batcher)
    for name in ("identity", "name", "source", "embed_dim"):
        assert getattr(queued, name) == getattr(model, name)
    pixels = np.stack([np.asarray(drawn(number, (32, 32))) for number in range(7)])
    np.testing.assert_allclose(queued.encode_image(pixels), model.encode_image(pixels), atol=TOLERANCE)
    np.testing.assert_allclose(queued.encode_text(["a", "狗"]), model.encode_text(["a", "狗"]), atol=TOLERANCE)


def test_an_error_of_the_model_reaches_the_job(batcher, model, monkeypatch):
    wait_until_warm(batcher)

    def fail(pictures):
        raise JclipError("not finite")

    monkeypatch.setattr(batcher, "_model", SimpleNamespace(encode_image=fail))
    with pytest.raises(JclipError, match="not finite"):
        QueuedModel(model, batcher).encode_image(np.zeros((1, 32, 32, 3), np.uint8))


def test_the_end_of_the_service_stops_the_job(tmp_path, model, batcher):
    """The job is interrupted between batches, and the same sources resume it."""
    write_images(tmp_path / "images", range(9))
    gallery, entered, gate = Gallery(tmp_path / "index", model), threading.Event(), threading.Event()

    class Slow(QueuedModel):
        def encode_image(self, pictures):
            entered.set()
            assert gate.wait(10)
            return super().encode_image(pictures)

    job = Job(Slow(model, batcher), [str(tmp_path / "images")], gallery, "apply")
    job.start()
    assert entered.wait(20)
    stopping = threading.Thread(target=job.stop)
    stopping.start()
    while not job._stopping.is_set():
        pass
    gate.set()
    stopping.join(10)
    assert not job.running and not job.failure and not (tmp_path / "index").exists()
    embed(model, tmp_path / "images", tmp_path / "index", workers=0, update=True)
    assert len(Index.open(tmp_path / "index")) == 9
