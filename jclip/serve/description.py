"""OpenAPI description of the service, made from its endpoints."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from jclip import __version__
from jclip.serve.endpoint import Endpoint
from jclip.serve.refusals import ERROR_SCHEMA

_WITH_BODY = (400, 408, 413, 415, 422, 429)
"""Statuses that every endpoint with a body may answer."""
_EVERYWHERE = (403, 500)
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"$ref": "#/components/schemas/Error"}}}


def description(endpoints: Sequence[Endpoint], public: Sequence[str], keyed: bool) -> dict[str, Any]:
    """Returns the description, OpenAPI 3.1.

    Args:
      endpoints: the endpoints.
      public: paths that need no key.
      keyed: the service has a key.
    """
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, keyed and each.path not in public)
    schemes = {"key": {"type": "http", "scheme": "bearer"}} if keyed else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jclip",
            "version": __version__,
            "description": "Embeds, classifies and finds images and texts.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR_SCHEMA}, "securitySchemes": schemes},
    }


def _operation(endpoint: Endpoint, keyed: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": {"200": {"description": "The answer.", "content": _content(endpoint)}},
    }
    if endpoint.about:
        operation["description"] = endpoint.about
    if endpoint.parameters:
        operation["parameters"] = [
            {
                "name": name,
                "in": "path" if f"{{{name}}}" in endpoint.path else "query",
                "required": field.required,
                "description": field.about,
                "schema": field.kind.schema() | ({} if field.default is None else {"default": field.default}),
            }
            for name, field in endpoint.parameters.items()
        ]
    statuses = {*endpoint.errors, *_EVERYWHERE}
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": endpoint.body.schema()}},
        }
        statuses |= {*_WITH_BODY}
    if keyed:
        operation["security"] = [{"key": []}]
        statuses.add(401)
    if endpoint.etag:
        operation["responses"]["304"] = {"description": "The client's copy is current."}
    for status in sorted(statuses):
        response: dict[str, Any] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": _ERROR}},
        }
        if status in (429, 503):
            response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
        operation["responses"][str(status)] = response
    return operation


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if isinstance(endpoint.answer, dict):
        return {"application/json": {"schema": endpoint.answer}}
    return {name: {} for name in endpoint.answer}
