"""Images in requests: data URIs, and addresses if they are allowed, decoded in threads."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from jclip.images.opening import TOO_LARGE, PictureError, cores, open_header
from jclip.images.preprocess import Orientation, Preprocessing, to_array
from jclip.serve.refusals import Refusal, over_limit

_log = logging.getLogger(__name__)
_FETCHERS = 16
"""Number of threads that wait for other servers."""

DATA, WEB = "data:", ("http://", "https://")
T = TypeVar("T")
Fetch = Callable[[str], bytes]
"""Returns the bytes at an address. Raises Refusal."""


@dataclass(frozen=True)
class ImageSource:
    """Image of a request: a data URI, or an address."""

    text: str


def is_image(text: str) -> bool:
    """Returns True for a data URI of an image.

    >>> is_image("data:image/png;base64,iVBO"), is_image("data: a word")
    (True, False)
    """
    return text[:11].lower() == "data:image/"


def data_of(uri: str) -> bytes:
    """Returns the bytes in a base64 data URI. Raises Refusal if it is not one.

    >>> data_of("data:image/png;base64,iVBO")
    b'\\x89PN'
    """
    head, comma, body = uri.partition(",")
    if not (comma and head[:5].lower() == DATA and head.lower().endswith(";base64")):
        raise Refusal(422, "invalid_image", "it is not an image: send data:image/jpeg;base64,…")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(422, "invalid_image", "its base64 is damaged") from None


class Images:
    """Reader of images, with one thread for each CPU core.

    Args:
      preprocessing: the model's; None for a model without an image tower.
      orientation: treatment of the EXIF orientation.
      megapixels: maximum size.
      fetch: fetches an address; None if addresses are not allowed.
    """

    def __init__(
        self, preprocessing: Preprocessing | None, orientation: Orientation, megapixels: float, fetch: Fetch | None
    ):
        self._preprocessing = preprocessing and replace(preprocessing, orientation=orientation)
        self._megapixels, self._fetch, self._threads = megapixels, fetch, cores()
        self._pool = ThreadPoolExecutor(self._threads, "jclip-decode")
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "jclip-fetch")

    def close(self) -> None:
        """Ends the threads."""
        for pool in (self._pool, self._fetchers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs other work in the threads, such as making a thumbnail."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def read(self, sources: Sequence[ImageSource]) -> list[np.ndarray | Refusal]:
        """Returns each image as uint8 (size, size, 3), or its error.

        A request has at most one image in each thread at once, so that others get their turn.
        """
        turn, loop = asyncio.Semaphore(self._threads), asyncio.get_running_loop()

        async def one(source: ImageSource) -> np.ndarray | Refusal:
            async with turn:
                data: bytes | str | Refusal = source.text
                if source.text.startswith(WEB):
                    data = await loop.run_in_executor(self._fetchers, self._fetched, source.text)
                return data if isinstance(data, Refusal) else await loop.run_in_executor(self._pool, self._read, data)

        tasks = [asyncio.ensure_future(one(source)) for source in sources]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def _fetched(self, url: str) -> bytes | Refusal:
        if self._fetch is None:
            message = "images by URL are off: send a data URI, or start the service with --allow-urls"
            return Refusal(422, "urls_off", message)
        try:
            return self._fetch(url)
        except Refusal as refusal:
            return refusal

    def _read(self, image: bytes | str) -> np.ndarray | Refusal:
        """Returns the pixels of an image: its bytes, or a data URI."""
        try:
            if self._preprocessing is None:
                raise Refusal(422, "no_image_tower", "this model encodes texts only")
            return self._array(self._preprocessing, data_of(image) if isinstance(image, str) else image)
        except Refusal as refusal:
            return refusal
        except Exception:  # a bug in a decoder costs one item, not the batch
            _log.exception("an image could not be read")
            return Refusal(422, "invalid_image", "it cannot be read as an image")

    def _array(self, preprocessing: Preprocessing, data: bytes) -> np.ndarray:
        try:
            image = open_header(data, "it", self._megapixels)
            return to_array(preprocessing, image, "it")
        except PictureError as error:
            if error.kind == TOO_LARGE:
                raise over_limit("", error.why.partition(",")[0], f"{self._megapixels:g}", "--max-megapixels") from None
            raise Refusal(422, "invalid_image", f"it cannot be read as an image ({error.why})") from None
