"""Thumbnails and originals of indexed images."""

import re

from starlette.requests import Request
from starlette.responses import Response

from jclip.search.entries import Entry
from jclip.search.searching import Searcher
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.endpoints.searching import ID
from jclip.serve.fields import Field
from jclip.serve.gallery import Gallery
from jclip.serve.images import Images
from jclip.serve.memory import Account, HeldResponse, Memory
from jclip.serve.refusals import Refusal
from jclip.serve.responses import unless_known
from jclip.serve.service import Service
from jclip.serve.thumbnails import Thumbnails, original

_SHOWN = {
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "image/avif": re.compile(rb".{4}ftypavi[fs]", re.DOTALL),
    "image/bmp": re.compile(rb"BM"),
}
"""First bytes of the formats that browsers show. Others are downloads."""
_OTHER = "application/octet-stream"
_THUMBNAILS = 64_000_000  # bytes


class Files:
    """Endpoints that send images of the index."""

    def __init__(self, service: Service, gallery: Gallery, images: Images, memory: Memory):
        self._service, self._gallery, self._images, self._memory = service, gallery, images, memory
        self._thumbnails = Thumbnails(_THUMBNAILS, service.limits.megapixels)
        service.metrics.watch("jclip_thumbnail_bytes", "Thumbnails in memory.", lambda: self._thumbnails.held)

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoints."""
        entry = {"id": Field(ID, "Id of an entry.", required=True)}
        return [
            Endpoint(
                "GET",
                "/thumb/{id}",
                "thumb",
                "Returns a thumbnail of an indexed image.",
                self._thumb,
                parameters=entry,
                answer=("image/jpeg",),
                errors=(404, 429, 503),
                etag=True,
                about="404 if the file is not what was indexed any more.",
            ),
            Endpoint(
                "GET",
                "/image/{id}",
                "image",
                "Returns the file of an indexed image.",
                self._image,
                parameters=entry,
                answer=(*_SHOWN, _OTHER),
                errors=(404, 429, 503),
                about="404 if the file is not what was indexed any more.",
            ),
        ]

    async def _thumb(self, given: Given, request: Request) -> Response:
        with self._service.encoding.places(1):
            entry = await self._entry(given["id"])
            index = self._gallery.index
            orientation = self._service.orientation if index is None else index.facts.orientation
            data = await self._images.run(lambda: self._thumbnails.of(entry, orientation))
        return unless_known(request, data, "image/jpeg")

    async def _image(self, given: Given, request: Request) -> Response:
        account = Account(self._memory)
        with self._service.encoding.places(1):
            entry = await self._entry(given["id"])
            account.take(entry.size or 0)
            try:
                data = await self._images.run(lambda: original(entry))
            except BaseException:
                account.close()
                raise
        media_type = next((name for name, mark in _SHOWN.items() if mark.match(data)), _OTHER)
        headers = {"Content-Disposition": "attachment" if media_type == _OTHER else "inline"}
        return HeldResponse(account, data, media_type, headers)

    async def _entry(self, entry_id: int) -> Entry:
        def find(searcher: Searcher) -> Entry | None:
            if not searcher.index.query("SELECT 1 FROM entries WHERE id = ?", (entry_id,)):
                return None
            return searcher.index.entry(entry_id)

        found = await self._gallery.run(find)
        if found is None:
            raise Refusal(404, "no_entry", f"the index has no entry {entry_id}")
        return found
