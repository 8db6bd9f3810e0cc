import asyncio
import threading

import pytest

from jclip.serve.gallery import Gallery
from jclip.serve.refusals import Refusal


def test_long_work_ends_when_nobody_waits_for_it(place, model):
    """A request whose client left, and one that the end of the service finds."""
    gallery = Gallery(place / "index", model)
    gallery.open()
    begun, ended = threading.Event(), threading.Event()

    def work(searcher, report):
        begun.set()
        try:
            while True:
                report(1, 2)
        finally:
            ended.set()

    async def leave():
        task = asyncio.create_task(gallery.run_long(work))
        await asyncio.to_thread(begun.wait, 10)
        assert not ended.is_set()
        task.cancel()
        assert await asyncio.to_thread(ended.wait, 10)

    async def close():
        task = asyncio.create_task(gallery.run_long(work))
        await asyncio.to_thread(begun.wait, 10)
        await asyncio.to_thread(gallery.close)
        with pytest.raises(Refusal, match="the service has ended"):
            await task

    asyncio.run(leave())
    begun.clear()
    asyncio.run(close())
