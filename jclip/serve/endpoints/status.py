"""Models, facts, progress, health and metrics of the service."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from jclip import __version__
from jclip.plain import shown
from jclip.search.progress import Progress
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.fields import Schema
from jclip.serve.metrics import MEDIA_TYPE
from jclip.serve.refusals import Refusal
from jclip.serve.responses import answered, refused
from jclip.serve.service import Service

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}


def _record(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


class Status:
    """Endpoints that describe the service."""

    def __init__(self, service: Service):
        self._service = service

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoints."""
        model = _record(id=_TEXT, object={"const": "model"}, created=_WHOLE, owned_by=_TEXT)
        return [
            Endpoint(
                "GET",
                "/v1/models",
                "listModels",
                "Lists the model, in the shape of OpenAI's API.",
                self._models,
                answer=_record(object={"const": "list"}, data={"type": "array", "items": model}),
            ),
            Endpoint(
                "GET",
                "/info",
                "info",
                "Returns facts of the model, the index and the limits.",
                self._info,
                answer=_record(
                    version=_TEXT,
                    model=_record(
                        name=_TEXT,
                        identity=_TEXT,
                        dim=_WHOLE,
                        image_size={"type": ["integer", "null"]},
                        context_length=_WHOLE,
                        similarity_scale=_NUMBER,
                    ),
                    orientation=_TEXT,
                    urls={"type": "boolean"},
                    index={"anyOf": [_record(entries=_WHOLE, name=_TEXT), {"type": "null"}]},
                    limits={"type": "object", "additionalProperties": _NUMBER},
                ),
            ),
            Endpoint(
                "GET",
                "/progress",
                "progress",
                "Returns the progress of the embedding that --embed started.",
                self._progress,
                answer=_record(
                    state={"enum": ["idle", "embedding"]},
                    done=_WHOLE,
                    total=_WHOLE,
                    rate=_NUMBER,
                    seconds_left={"type": ["number", "null"]},
                    skipped=_WHOLE,
                    entries=_WHOLE,
                    error={"type": ["string", "null"]},
                ),
            ),
            Endpoint(
                "GET",
                "/health",
                "health",
                "Answers 200 when the model is compiled for every shape, and 503 before.",
                self._health,
                answer=_record(status={"const": "ok"}),
                errors=(503,),
            ),
            Endpoint(
                "GET",
                "/metrics",
                "metrics",
                "Returns figures for Prometheus.",
                self._metrics,
                answer=(MEDIA_TYPE,),
            ),
        ]

    async def _models(self, given: Given, request: Request) -> Response:
        model = {"id": self._service.model.name, "object": "model", "created": 0, "owned_by": "jclip"}
        return answered({"object": "list", "data": [model]})

    async def _info(self, given: Given, request: Request) -> Response:
        service, bundle = self._service, self._service.model.bundle
        gallery = service.gallery
        index = gallery and {"entries": self._entries(), "name": shown(gallery.folder.name)}
        return answered(
            {
                "version": __version__,
                "model": {
                    "name": service.model.name,
                    "identity": service.model.identity,
                    "dim": service.model.embed_dim,
                    "image_size": bundle.preprocessing and bundle.preprocessing.size,
                    "context_length": bundle.context_length,
                    "similarity_scale": service.model.similarity_scale,
                },
                "orientation": service.orientation,
                "urls": service.urls,
                "index": index,
                "limits": asdict(service.limits) | {"max_megapixels": service.limits.megapixels},
            }
        )

    async def _progress(self, given: Given, request: Request) -> Response:
        job = self._service.job
        running = job is not None and job.running
        progress = (job and job.progress) or Progress(0, 0)
        return answered(
            {
                "state": "embedding" if running else "idle",
                "done": progress.done,
                "total": progress.total,
                "rate": progress.rate if running else 0.0,
                # The rate of the warm-up says nothing about what follows it.
                "seconds_left": progress.seconds_left if running and self._service.batcher.warm else None,
                "skipped": progress.skipped,
                "entries": self._entries(),
                "error": (job and job.failure) or None,
            }
        )

    def _entries(self) -> int:
        gallery = self._service.gallery
        return 0 if gallery is None or gallery.index is None else len(gallery.index)

    async def _health(self, given: Given, request: Request) -> Response:
        if self._service.batcher.failure is not None:
            return refused(Refusal(503, "model_failed", "the model cannot be compiled: the service's log says why"))
        if not self._service.batcher.warm:
            headers = {"Retry-After": "2"}
            return refused(Refusal(503, "not_warm", "the model is being compiled: try again later", headers))
        return answered({"status": "ok"})

    async def _metrics(self, given: Given, request: Request) -> Response:
        return Response(self._service.metrics.text(), media_type=MEDIA_TYPE)
