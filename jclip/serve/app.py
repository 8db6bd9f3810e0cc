"""ASGI application of the service: model, queue, index, endpoints and page, put together."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from jclip.images.preprocess import Orientation
from jclip.serve.answering import Answering, refused_by_router
from jclip.serve.background import Job, QueuedModel
from jclip.serve.batching import LANES, Batcher
from jclip.serve.bodies import Bodies
from jclip.serve.description import description
from jclip.serve.encoding import Encoding
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.endpoints.classifying import Classifying
from jclip.serve.endpoints.embeddings import Embeddings
from jclip.serve.endpoints.files import Files
from jclip.serve.endpoints.searching import Searching
from jclip.serve.endpoints.status import Status
from jclip.serve.fetching import Fetcher
from jclip.serve.gallery import Gallery
from jclip.serve.guard import LOCAL, Guard
from jclip.serve.images import Images
from jclip.serve.limits import Limits
from jclip.serve.memory import Memory
from jclip.serve.metrics import Metrics
from jclip.serve.page_files import page_routes
from jclip.serve.responses import answered
from jclip.serve.service import Service

PUBLIC = ("/", "/page/", "/health", "/openapi.json")
"""Paths that need no key: the page, which asks for the key, and what says nothing about models and files."""


@dataclass(frozen=True)
class Settings:
    """Settings of a service.

    Attributes:
      limits: limits on requests.
      batch: maximum number of items that are encoded at once.
      orientation: treatment of the EXIF orientation of images in requests; None for that of the index, or "apply".
      key: key that requests must send; None for none.
      hosts: names that requests may use for this machine, besides local ones; None for any.
      urls: images may be URLs of public addresses.
    """

    limits: Limits = field(default_factory=Limits)
    batch: int = 32
    orientation: Orientation | None = None
    key: str | None = None
    hosts: frozenset[str] | None = frozenset()
    urls: bool = False


def make_app(
    model: Any, settings: Settings | None = None, gallery: Gallery | None = None, sources: Sequence[str] = ()
) -> Starlette:
    """Returns the application. Its lifespan starts and stops the model's thread; `app.state.service` has its parts.

    Args:
      model: the model, whose own batch size is at least that of the settings.
      settings: see `Settings`.
      gallery: the index; None for a service that only encodes.
      sources: what to embed into the index while the service runs.
    """
    settings = settings or Settings()
    index = gallery and gallery.index
    orientation = settings.orientation or (index.facts.orientation if index else "apply")
    metrics, limits = Metrics(), settings.limits
    batcher = Batcher(model, settings.batch, metrics.encoded)
    fetch = Fetcher(limits.max_body) if settings.urls else None
    images = Images(model.bundle.preprocessing, orientation, limits.megapixels, fetch)
    encoding, memory = Encoding(batcher, images, limits), Memory(limits.max_buffer)
    service = Service(model, limits, orientation, batcher, encoding, metrics, gallery, settings.urls)
    if gallery is not None and sources:
        service.job = Job(QueuedModel(model, batcher), sources, gallery, None if index else orientation)
    for lane in LANES:
        metrics.watch("jclip_queue_depth", "Items that wait for the model.", _depth(batcher, lane), lane=lane)
    metrics.watch("jclip_accepted_items", "Items that are accepted and not answered.", lambda: encoding.accepted)
    metrics.watch("jclip_buffer_bytes", "Bytes of bodies and files of requests in progress.", lambda: memory.held)

    endpoints = [*Embeddings(service).endpoints(), *Classifying(service).endpoints(), *Status(service).endpoints()]
    if gallery is not None:
        endpoints += [*Searching(service, gallery).endpoints(), *Files(service, gallery, images, memory).endpoints()]
    answering = Answering(Bodies(limits, memory), metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        batcher.start()
        if service.job is not None:
            service.job.start()
        try:
            yield
        finally:
            if service.job is not None:
                service.job.stop()
            batcher.stop()
            images.close()
            if gallery is not None:
                gallery.close()

    app = Starlette(
        routes=[*(answering.route(each) for each in (*endpoints, _described(endpoints, settings))), *page_routes()],
        middleware=[
            Middleware(
                Guard,
                key=settings.key,
                hosts=None if settings.hosts is None else LOCAL | settings.hosts,
                public=PUBLIC,
            )
        ],
        exception_handlers={HTTPException: refused_by_router},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _depth(batcher: Batcher, lane: str) -> Callable[[], float]:
    return lambda: batcher.depth(lane)


def _described(endpoints: Sequence[Endpoint], settings: Settings) -> Endpoint:
    """Returns the endpoint of the description, which describes itself too."""
    found: dict[str, Any] = {}

    async def describe(given: Given, request: Request) -> Response:
        return answered(found)

    itself = Endpoint(
        "GET", "/openapi.json", "describe", "Returns this description.", describe, answer={"type": "object"}
    )
    found |= description([*endpoints, itself], PUBLIC, settings.key is not None)
    return itself
