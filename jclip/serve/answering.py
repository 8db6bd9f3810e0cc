"""Answers requests of the endpoints: reads them, runs the code, and turns every error into JSON."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from jclip.serve.bodies import Bodies
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.fields import Field, Number, Whole
from jclip.serve.metrics import Metrics
from jclip.serve.refusals import Refusal, wrong
from jclip.serve.responses import refused

_log = logging.getLogger(__name__)

GONE = 499
"""Status in the metrics of a request whose client left; nothing is sent."""


class Answering:
    """Turns endpoints into routes."""

    def __init__(self, bodies: Bodies, metrics: Metrics):
        self._bodies, self._metrics = bodies, metrics

    def route(self, endpoint: Endpoint) -> Route:
        """Returns the route of an endpoint."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            response = await self._answer(endpoint, request)
            self._metrics.answered(endpoint.path, response.status_code, time.perf_counter() - started)
            return response

        return Route(endpoint.path, answer, methods=[endpoint.method], name=endpoint.name)

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        try:
            given = read_parameters(endpoint.parameters, request)
            if endpoint.body is None:
                return await _unless_gone(request, endpoint, given)
            async with self._bodies.json(request) as body:
                return await _unless_gone(request, endpoint, given | endpoint.body.read(body, ""))
        except Refusal as refusal:
            return refused(refusal)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except Exception:
            _log.exception("%s %s failed", endpoint.method, endpoint.path)
            return refused(Refusal(500, "internal_error", "the service failed: its log says why"))


async def refused_by_router(request: Request, error: Exception) -> Response:
    """Returns the response for an unknown path or a wrong method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        headers = dict(error.headers or {})
        return refused(Refusal(405, "method_not_allowed", f"use {headers.get('Allow', 'another method')}", headers))
    return refused(Refusal(404, "not_found", "there is nothing at this path: /openapi.json lists the endpoints"))


def read_parameters(parameters: Mapping[str, Field], request: Request) -> Given:
    """Returns the parameters of the path and the query, checked. Raises Refusal; a wrong path parameter is a 404."""
    found: Given = {}
    for name, field in parameters.items():
        if name in request.path_params:
            try:
                found[name] = field.kind.read(_parsed(field, request.path_params[name]), name)
            except Refusal:
                raise Refusal(404, "not_found", f"there is no {name} like this") from None
            continue
        values = request.query_params.getlist(name)
        if len(values) > 1:
            raise wrong(name, "it is given more than once")
        found[name] = field.kind.read(_parsed(field, values[0]), name) if values else field.default
    return found


def _parsed(field: Field, value: str) -> Any:
    """Returns a parameter as a number, if it must be one and is one."""
    if isinstance(field.kind, Whole):
        return int(value) if re.fullmatch(r"-?[0-9]{1,19}", value) else value
    if isinstance(field.kind, Number) and "_" not in value:
        with suppress(ValueError):
            return float(value)
    return value


async def _unless_gone(request: Request, endpoint: Endpoint, given: Given) -> Response:
    """Runs the code of an endpoint, and cancels it if the client leaves, which frees its places in the queue."""
    work = asyncio.ensure_future(endpoint.handle(given, request))
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
