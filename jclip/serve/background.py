"""Embeds sources into the index while the service runs.

The job encodes through the service's queue, in a lane of its own. So it takes the model's free time and its turn under
load, and compiles nothing. If the service ends, the job stops: the same command resumes it.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from jclip.bundle import Bundle
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.io.files import Unfinished
from jclip.search.progress import Progress
from jclip.serve.batching import BACKGROUND, TEXT, Batcher
from jclip.serve.gallery import Gallery

_log = logging.getLogger(__name__)
_FAILED = "embedding failed: the service's log says why"
_SECONDS = 10.0
"""Seconds that the end of the service waits for the job."""


class QueuedModel:
    """Model whose encoding goes through a queue. It has what `jclip.search.embedding` needs of a model."""

    def __init__(self, model: Any, batcher: Batcher):
        self._model, self._batcher = model, batcher
        self.bundle: Bundle = model.bundle

    @property
    def identity(self) -> str:
        """Digest of the model's contents."""
        return str(self._model.identity)

    @property
    def name(self) -> str:
        """Name for people."""
        return str(self._model.name)

    @property
    def source(self) -> str:
        """Path or address from which the model was loaded."""
        return str(self._model.source)

    @property
    def embed_dim(self) -> int:
        """Size of a vector."""
        return int(self._model.embed_dim)

    def encode_image(self, pictures: np.ndarray) -> np.ndarray:
        """Encodes uint8 (n, size, size, 3) as (n, d) float32, L2-normalised."""
        return self._encoded(BACKGROUND, list(pictures))

    def encode_text(self, sentences: Sequence[str]) -> np.ndarray:
        """Encodes texts as (n, d) float32, L2-normalised."""
        return self._encoded(TEXT, sentences)

    def _encoded(self, lane: str, inputs: Sequence[Any]) -> np.ndarray:
        try:
            outputs = self._batcher.submit(lane, inputs).result()
        except CancelledError:
            raise Unfinished("the service has ended: the same command resumes") from None
        vectors = []
        for output in outputs:
            if isinstance(output, Exception):
                raise output
            vectors.append(output)
        return np.stack(vectors)


class Job:
    """Embedding of sources in a thread.

    Args:
      model: the model, whose encoding goes through the service's queue.
      sources: as `jclip embed` takes them.
      gallery: the index, which is made or updated, and opened again in the end.
      orientation: of a new index; None for that of the index that is updated.
    """

    def __init__(self, model: QueuedModel, sources: Sequence[str], gallery: Gallery, orientation: Orientation | None):
        self._model, self._sources, self._gallery, self._orientation = model, list(sources), gallery, orientation
        self._thread = threading.Thread(target=self._run, name="jclip-embed", daemon=True)
        self._stopping = threading.Event()
        self.progress: Progress | None = None
        self.failure = ""

    @property
    def running(self) -> bool:
        """True while the job is not finished."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the job."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the job, which can be resumed, and waits for it a few seconds."""
        self._stopping.set()
        self._thread.join(_SECONDS)

    def _run(self) -> None:
        from jclip.search.embedding import embed  # here, because a service without a job does not need it

        try:
            embed(
                self._model,
                self._sources,
                self._gallery.folder,
                update=True,
                orientation=self._orientation,
                watch=self._watch,
                snapshot=self._gallery.open,
            )
            self._gallery.open()
        except JclipError as error:
            if not self._stopping.is_set():
                self.failure = _FAILED  # the message may name paths, which clients are not told
                _log.error("--embed: %s", error)
        except Exception:
            self.failure = _FAILED
            _log.exception("--embed failed")

    def _watch(self, progress: Progress) -> None:
        if self._stopping.is_set():
            raise Unfinished("the service has ended: the same command resumes")
        self.progress = progress
