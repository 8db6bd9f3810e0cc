"""Reads the JSON bodies of requests within limits on size, time, and the memory of all together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from jclip.io.json_files import decode
from jclip.serve.limits import Limits
from jclip.serve.memory import Account, Memory
from jclip.serve.refusals import Refusal, over_limit

_DRAINED = 4
"""A body beyond the limit is read and dropped up to this multiple, because most clients send all before they read."""


class Bodies:
    """Reader of bodies."""

    def __init__(self, limits: Limits, memory: Memory):
        self._limits, self._memory = limits, memory

    @asynccontextmanager
    async def json(self, request: Request) -> AsyncIterator[Any]:
        """Yields the JSON value of a body, whose bytes count as held within the block.

        Raises Refusal: 400 if it is not JSON, 408 if it is too slow, 413 if it is too large, 415 if it is of another
        type, 429 if the bodies of all requests are too large together.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "content_type", "send JSON with the header Content-Type: application/json")
        with self._memory.account() as account:
            yield self._decoded(await self._read(request, account))

    async def _read(self, request: Request, account: Account) -> bytes:
        data = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await self._check_length(request)
                more = True
                while more:
                    chunk, more = await _received(request)
                    if len(data) + len(chunk) > self._limits.max_body:
                        if more:
                            await _drop(request, _DRAINED * self._limits.max_body)
                        raise self._too_large(f"more than {self._limits.max_body} bytes")
                    account.take(len(chunk))
                    data += chunk
        except TimeoutError:
            raise Refusal(
                408,
                "body_timeout",
                f"the body did not arrive within {self._limits.body_seconds:g} seconds (--body-seconds)",
                {"Connection": "close"},
            ) from None
        return bytes(data)

    @staticmethod
    def _decoded(data: bytes) -> Any:
        if not data:
            raise Refusal(400, "empty", "the body is empty: send a JSON object")
        try:
            return decode(data)
        except ValueError as error:
            raise Refusal(400, "invalid_json", f"the body is not JSON: {error}") from None

    async def _check_length(self, request: Request) -> None:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_body:
            if "expect" not in request.headers:
                await _drop(request, _DRAINED * self._limits.max_body)
            raise self._too_large(f"{length} bytes")

    def _too_large(self, found: str) -> Refusal:
        refusal = over_limit("body", found, str(self._limits.max_body), "--max-body")
        refusal.headers["Connection"] = "close"
        return refusal


async def _drop(request: Request, most: int) -> None:
    """Receives the rest of a body, at most `most` bytes, and drops it."""
    more = True
    while more and most > 0:
        chunk, more = await _received(request)
        most -= len(chunk)


async def _received(request: Request) -> tuple[bytes, bool]:
    """Returns the next part of a body, and whether there is more. Raises ClientDisconnect if the client left."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)
