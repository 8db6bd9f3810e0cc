"""Target: the HTTP service, given requests by ASGI."""

import asyncio
import json
from pathlib import Path

import numpy as np

from tests.fuzz.target import Ready


class Quick:
    """Model whose vectors cost nothing."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode_image(self, pictures, **more):
        return self._vectors(len(pictures))

    def encode_text(self, sentences):
        return self._vectors(len(sentences))

    def _vectors(self, count):
        return np.full((count, self._model.embed_dim), self._model.embed_dim**-0.5, np.float32)


def service(scratch: Path) -> Ready:
    """Returns a target: a request, as "METHOD PATH?QUERY", a line break, and a body. A 5xx is an error."""
    from jclip.loading import load
    from jclip.serve.app import Settings, make_app
    from jclip.serve.gallery import Gallery
    from jclip.serve.limits import Limits
    from tests.serve.services import image_uri, write_gallery

    write_gallery(scratch)
    model = Quick(load(scratch / "bundle"))
    gallery = Gallery(scratch / "index", model)
    gallery.open()
    app = make_app(model, Settings(Limits(max_items=4), batch=4), gallery)
    loop = asyncio.new_event_loop()
    lifespan = app.router.lifespan_context(app)
    loop.run_until_complete(lifespan.__aenter__())
    while loop.run_until_complete(_status(app, b"GET /health\n")) == 503:
        loop.run_until_complete(asyncio.sleep(0.05))

    def read(data: bytes) -> None:
        status = loop.run_until_complete(_status(app, data))
        assert status < 500, f"the service answered {status}"

    def close() -> None:
        loop.run_until_complete(lifespan.__aexit__(None, None, None))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    picture = image_uri(1)
    bodies = {
        "/v1/embeddings": [
            {"input": "猫", "encoding_format": "base64"},
            {"input": ["a", picture], "dimensions": 4, "model": "x"},
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]},
        ],
        "/embed": [{"inputs": ["a", "b"], "normalize": True}],
        "/classify": [{"image": picture, "labels": ["猫", "狗"]}, {"images": [picture], "labels": {"cat": ["a"]}}],
        "/search": [
            {"text": "狗 + 雪 - 人", "k": 3, "offset": 1},
            {"image": picture, "filter": {"folder": "/a", "meta": {"parity": 1}, "after": "2024-05-01"}},
            {"query": [{"text": "a", "weight": 2}, {"id": 3, "weight": -1}]},
            {"id": 2},
        ],
    }
    gets = ("/thumb/1", "/image/2", "/duplicates?threshold=0.9&k=3", "/filters", "/info", "/v1/models", "/health", "/x")
    seeds = [f"POST {path}\n{json.dumps(body)}".encode() for path, some in bodies.items() for body in some]
    return Ready([*seeds, *(f"GET {path}\n".encode() for path in gets)], read, close)


async def _status(app, data: bytes) -> int:
    line, _, body = data.partition(b"\n")
    method, _, target = line.partition(b" ")
    path, _, query = target.partition(b"?")
    sent, statuses = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive():
        if not sent:
            await asyncio.Event().wait()
        return sent.pop()

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1"),
        "scheme": "http",
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return statuses[0]
