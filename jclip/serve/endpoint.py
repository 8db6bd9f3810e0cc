"""Endpoint of the service: what it reads, what it answers, and the code behind it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from jclip.serve.fields import Field, Record, Schema

Given = dict[str, Any]
"""Fields of the body and parameters of the address, checked, by name."""

Handle = Callable[[Given, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """Endpoint of the service. The routes and the OpenAPI description are made from it.

    Attributes:
      method: "GET" or "POST".
      path: path, with parameters in braces: "/thumb/{id}".
      name: identifier in the description.
      summary: one sentence.
      handle: code that answers. It may raise Refusal.
      body: JSON object that it reads; None if it reads no body.
      parameters: parameters of the path and the query.
      answer: JSON schema of the answer, or the media types of an answer that is not JSON.
      errors: statuses of errors besides those that every endpoint may have.
      etag: answers 304 to a client that has the answer.
      about: explanation.
    """

    method: str
    path: str
    name: str
    summary: str
    handle: Handle
    body: Record | None = None
    parameters: Mapping[str, Field] = field(default_factory=dict)
    answer: Schema | tuple[str, ...] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    etag: bool = False
    about: str = ""
