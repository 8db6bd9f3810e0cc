"""Responses of the service."""

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jclip.plain import as_json
from jclip.serve.refusals import Refusal


def answered(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a JSON response. File names that are not UTF-8 have surrogates, which are escaped."""
    data = as_json(value, allow_nan=False, separators=(",", ":")).encode()
    return Response(data, status, headers, "application/json")


def refused(refusal: Refusal) -> Response:
    """Returns the response for an error."""
    return answered({"error": refusal.as_error()}, refusal.status, refusal.headers)


def unless_known(request: Request, data: bytes, media_type: str, more: dict[str, str] | None = None) -> Response:
    """Returns a response with an ETag; a 304 without the data, if the client has them. `more` are its headers."""
    tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache", **(more or {})}
    if tag in (each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
