import asyncio
import json
import threading

import pytest

from jclip.errors import JclipError
from jclip.serve.limits import Limits
from tests.serve.services import client_of, drawn, encoded, error_of, image_uri, uri, wait_until_warm

SMALL = Limits(max_body=50_000, max_items=3, max_characters=10, max_queue=5, max_buffer=60_000, max_results=30)
LARGE = uri(encoded(drawn(1, (150, 100))))


@pytest.fixture(scope="module")
def limited(place):
    with client_of(place, limits=SMALL) as client:
        yield client


def requests_with(text):
    """Returns every place of a request that takes a text."""
    return [
        ("/v1/embeddings", {"input": text}, "input"),
        ("/v1/embeddings", {"input": ["a", text]}, "input[1]"),
        ("/v1/embeddings", {"messages": [{"content": text}]}, "messages[0].content"),
        ("/embed", {"inputs": text}, "inputs"),
        ("/embed", {"inputs": [text]}, "inputs[0]"),
        ("/search", {"text": text}, "text"),
        ("/search", {"query": [{"text": text}]}, "query[0].text"),
        ("/classify", {"images": image_uri(1), "labels": [text]}, "labels[0]"),
    ]


@pytest.mark.parametrize(("path", "body", "where"), requests_with("猫" * 11))
def test_long_texts(limited, path, body, where):
    error = error_of(limited.post(path, json=body), 413)
    assert error["message"] == f"{where}: 11 characters, but the limit is 10 (--max-characters)"
    assert error["code"] == "characters_limit"


@pytest.mark.parametrize(("path", "body", "where"), requests_with("猫" * 10))
def test_the_longest_text_that_is_allowed(limited, path, body, where):
    assert limited.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/embeddings", {"input": ["a"] * 4}, "input"),
        ("/embed", {"inputs": ["a"] * 4}, "inputs"),
        ("/classify", {"images": ["a"] * 4, "labels": ["a"]}, "images"),
        ("/classify", {"images": "a", "labels": ["a"] * 4}, "labels"),
    ],
)
def test_many_items(limited, path, body, where):
    error = error_of(limited.post(path, json=body), 413)
    assert error["message"] == f"{where}: 4 items, but the limit is 3 (--max-items)"


def test_large_bodies(limited):
    data = json.dumps({"inputs": "a", "more": " " * 60_000}).encode()
    headers = {"Content-Type": "application/json"}
    error = error_of(limited.post("/embed", content=data, headers=headers), 413)
    assert error["message"] == f"body: {len(data)} bytes, but the limit is 50000 (--max-body)"
    response = limited.post("/embed", content=iter([data[:1000], data[1000:]]), headers=headers)  # of unknown length
    assert error_of(response, 413)["message"] == "body: more than 50000 bytes, but the limit is 50000 (--max-body)"


def test_large_images(place):
    with client_of(place, limits=Limits(max_megapixels=0.01)) as client:
        found = client.post("/v1/embeddings", json={"input": [image_uri(1), LARGE]}).json()["data"]
        message = "0.015 megapixels, but the limit is 0.01 (--max-megapixels)"
        assert found[1]["error"]["message"] == f"input[1]: {message}" and "error" not in found[0]
        for path, body, place_ in (
            ("/v1/embeddings", {"input": LARGE}, ""),
            ("/search", {"image": LARGE}, "image: "),
            ("/classify", {"images": LARGE, "labels": ["a"]}, "images: "),
        ):
            error = error_of(client.post(path, json=body), 413)
            assert (error["message"], error["code"]) == (place_ + message, "megapixels_limit")


class Held:
    """Model that waits for a gate."""

    def __init__(self, model):
        self._model, self.gate, self.entered = model, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode_text(self, sentences):
        self.entered.set()
        assert self.gate.wait(20)
        return self._model.encode_text(sentences)


@pytest.fixture
def held(place, model):
    """A service whose model is held, with a request of 3 texts that waits in it."""
    client = client_of(place, limits=SMALL)
    with client:
        service = client.app.state.service
        wait_until_warm(service.batcher)
        service.batcher._model = gated = Held(model)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(client.post("/embed", json={"inputs": ["a"] * 3})))
        waiting.start()
        assert gated.entered.wait(10)
        yield client
        gated.gate.set()
        waiting.join(10)
        assert answers[0].status_code == 200 and service.encoding.accepted == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"inputs": ["a"] * 3}),
        ("/v1/embeddings", {"input": ["a", "a", "a"]}),
        ("/classify", {"images": image_uri(1), "labels": ["a", "b", "c"]}),
        ("/search", {"query": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}),
    ],
)
def test_a_full_queue(held, path, body):
    response = held.post(path, json=body)
    error = error_of(response, 429)
    assert error["code"] == "queue_limit"
    assert error["message"] == "3 items wait, and the limit is 5 (--max-queue): try again later"
    assert 1 <= int(response.headers["retry-after"]) <= 60


def test_single_requests_are_refused_alike(held):
    threads = [threading.Thread(target=held.post, args=("/embed",), kwargs={"json": {"inputs": "a"}}) for _ in range(2)]
    for thread in threads:
        thread.start()
    service = held.app.state.service
    while service.encoding.accepted < 5:
        pass
    for path, body in (("/embed", {"inputs": "a"}), ("/search", {"text": "a"}), ("/search", {"id": 1})):
        assert error_of(held.post(path, json=body), 429)["message"].startswith("5 items wait")
    assert error_of(held.get("/thumb/1"), 429) and held.get("/health").status_code == 200
    service.batcher._model.gate.set()
    for thread in threads:
        thread.join(10)


def test_bodies_of_all_requests_together(held):
    """The body of the request that waits, 40,010 bytes, and another one are more than the buffer."""
    body = {"inputs": "a", "more": " " * 39_980}
    thread = threading.Thread(target=held.post, args=("/embed",), kwargs={"json": body})
    thread.start()
    while held.app.state.service.encoding.accepted < 4:
        pass
    response = held.post("/embed", json=body)
    error = error_of(response, 429)
    assert error["code"] == "buffer_limit" and "(--max-buffer)" in error["message"]
    assert response.headers["retry-after"] == "1"
    held.app.state.service.batcher._model.gate.set()
    thread.join(10)


def test_a_client_that_leaves_frees_its_places(held):
    """Drives the application itself: the client of the other tests cannot leave."""
    body = json.dumps({"inputs": ["b", "b"]}).encode()
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers, "query_string": b""}
    service, sent = held.app.state.service, []
    before = service.batcher.depth("text")

    async def leave():
        queue = asyncio.Queue()
        await queue.put({"type": "http.request", "body": body})

        async def send(message):
            sent.append(message)

        task = asyncio.ensure_future(held.app(scope, queue.get, send))
        while service.batcher.depth("text") < before + 2:
            await asyncio.sleep(0.01)
        await queue.put({"type": "http.disconnect"})
        await task

    held.portal.call(leave)
    assert service.batcher.depth("text") == before and service.encoding.accepted == 3
    assert 'endpoint="/embed",status="499"' in held.get("/metrics").text


def test_a_body_that_does_not_arrive(place):
    client = client_of(place, limits=Limits(body_seconds=0.05))
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/embed", "headers": headers, "query_string": b""}
    sent = []

    async def slow():
        async def receive():
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message):
            sent.append(message)

        await client.app(scope, receive, send)

    asyncio.run(slow())
    assert sent[0]["status"] == 408 and b"within 0.05 seconds (--body-seconds)" in sent[1]["body"]


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "the body is empty: send a JSON object"),
        (b"{", 400, "the body is not JSON: Expecting property name"),
        (b"\xff", 400, "the body is not JSON: it is not UTF-8 text"),
        (b"[" * 100_000, 413, "body: 100000 bytes"),
        (b"[" * 40_000, 400, "the body is not JSON: it is nested too deep"),
        (b'{"inputs":' + b"1" * 5000 + b"}", 400, "the body is not JSON: a number in it has too many digits"),
        (b"[1]", 422, "a list is not an object"),
    ],
)
def test_bodies_that_are_not_json(limited, content, status, message):
    response = limited.post("/embed", content=content, headers={"Content-Type": "application/json; charset=utf-8"})
    assert error_of(response, status)["message"].startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_items": 0}, "max_items is 0"),
        ({"max_items": 2000}, "max_items is 2000, but max_queue is 1024: raise max_queue"),
        ({"max_body": 10**9}, "max_body is 1000000000, but max_buffer is 256000000: raise max_buffer"),
        ({"max_megapixels": 1e6}, "max_megapixels is 1e+06, but images of more than"),
        ({"body_seconds": float("inf")}, "body_seconds is inf"),
    ],
)
def test_limits_that_are_not_possible(given, message):
    with pytest.raises(JclipError, match=f"^{message.replace('+', '.')}"):
        Limits(**given)
