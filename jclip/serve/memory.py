"""Memory that bodies of requests and files in responses hold together."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jclip.serve.refusals import Refusal


class Memory:
    """Account of bytes, used from one event loop.

    Args:
      most: maximum number of bytes.
    """

    def __init__(self, most: int):
        self._most, self.held = most, 0

    @contextmanager
    def account(self) -> Iterator["Account"]:
        """Yields an account whose bytes are given back after the block."""
        account = Account(self)
        try:
            yield account
        finally:
            account.close()

    def take(self, size: int) -> None:
        """Takes bytes. Raises Refusal, 429, if there are not enough left."""
        if self.held + size > self._most:
            raise Refusal(
                429,
                "buffer_limit",
                f"the requests in progress hold {self.held} bytes, and the limit is {self._most} (--max-buffer): try "
                "again later",
                {"Retry-After": "1"},
            )
        self.held += size

    def give_back(self, size: int) -> None:
        """Gives bytes back."""
        self.held -= size


class Account:
    """Bytes of one request or response."""

    def __init__(self, memory: Memory):
        self._memory, self._taken = memory, 0

    def take(self, size: int) -> None:
        """Takes bytes. Raises Refusal, 429, if there are not enough left."""
        self._memory.take(size)
        self._taken += size

    def close(self) -> None:
        """Gives all bytes back."""
        self._memory.give_back(self._taken)
        self._taken = 0


class HeldResponse(Response):
    """Response whose bytes are held until it is sent."""

    def __init__(self, account: Account, content: bytes, media_type: str, headers: dict[str, str]):
        super().__init__(content, media_type=media_type, headers=headers)
        self._account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._account.close()
