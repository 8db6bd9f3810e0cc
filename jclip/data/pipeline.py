"""Batches by number: `Batches[step]` is a pure function of (seed, stage, step), so any step can be had again.

Axes: b batch (this process's share of it), h height, w width, c channels, l tokens.
"""

import queue
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jclip.data.host_augment import Decoder, HostAugmentation
from jclip.data.images import Picture, Preprocessing
from jclip.data.mixing import Order
from jclip.data.sources import ParallelSource, Source
from jclip.data.text import Tokenizer, pad
from jclip.errors import JclipError

Batch = dict[str, np.ndarray]

_REMEMBERED = 1 << 17  # tokenised texts that are kept, per tokenizer
_INT32 = 2**31
_TRIES = 64  # records that one after another prove unreadable: then the data is to blame, not a picture


class _Drawn(NamedTuple):
    """What an example takes from a record: one of its pictures, one of its captions."""

    source: int
    number: int
    which: int
    picture: Picture
    caption: str
    image_id: int
    text_id: int


class Batches:
    """The batches of a stage.

    A contrastive batch holds "image" uint8 (b, h, w, 3), "text" ids (b, l), "image_id" and "text_id" (b,), numbers of
    the picture and of the meaning over all sources. A teacher batch holds "student" ids (b, l) and "teacher" ids
    (b, m). Both hold "example" (b,), the global example index modulo 2^31. Integers are int32, as on the device.

    Args:
      sources: all of pictures with captions, or all of parallel text; mixed by their weights.
      batch_size: over all processes.
      seed, stage: of the run, and the stage's number; they decide the order.
      tokenizer: of the tower that trains.
      context_length: tokens, special ones included.
      buckets: shorter lengths, ascending: a batch is padded to the first in which its longest text fits.
      preprocessing: of pictures.
      augmentation: what is done to pictures while they are decoded.
      teacher_tokenizer, teacher_context_length: of the teacher, for parallel text.
      max_unreadable: so many pictures that cannot be read are replaced by the record that stands at the same place one
        epoch later (or two, …), so that a batch depends on the step alone; one more is an error. Each counts once.
      rows: which rows of every batch are made, where several processes share it; None for all.

    Attributes:
      unreadable: what was replaced so far, in words, each once; batches are made ahead of their reader.

    Raises:
      JclipError: no or empty sources, or sources of both kinds.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        batch_size: int,
        seed: int,
        stage: int,
        tokenizer: Tokenizer,
        context_length: int,
        buckets: Sequence[int] = (),
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
        augmentation: HostAugmentation = HostAugmentation(),  # noqa: B008 (frozen)
        teacher_tokenizer: Tokenizer | None = None,
        teacher_context_length: int | None = None,
        max_unreadable: int = 0,
        rows: Sequence[int] | None = None,
    ):
        if not sources:
            raise JclipError("there is no data: give the stage at least one source")
        parallel = [isinstance(source, ParallelSource) for source in sources]
        if any(parallel) and not all(parallel):
            raise JclipError("pictures with captions and parallel text do not mix in one stage: make it two stages")
        self._teacher_text: _Texts | None = None
        if all(parallel):
            if teacher_tokenizer is None or teacher_context_length is None:
                raise JclipError("parallel text is for teacher learning: name the teacher's bundle")
            self._teacher_text = _Texts(teacher_tokenizer, teacher_context_length, ())
        self._text = _Texts(tokenizer, context_length, buckets)
        self._sources, self._decode = sources, Decoder(preprocessing, augmentation, seed, stage)
        self._records: list[Sequence[Any]] = [source.open(preprocessing) for source in sources]
        for source, records in zip(sources, self._records, strict=True):
            if not len(records):
                raise JclipError(f"{source} is empty")
            if not source.weight > 0:
                raise JclipError(f"{source}: its weight must be above 0")
        self._english_shares = [each.english_share for each in sources if isinstance(each, ParallelSource)]
        self._order = Order([len(each) for each in self._records], [each.weight for each in sources], seed, stage)
        self._batch_size, self._stage, self._max_unreadable = batch_size, stage, max_unreadable
        self.unreadable: list[str] = []
        self._known_unreadable: set[tuple[int, int, int]] = set()
        # Processes must agree on the bucket, so that with buckets each looks at all texts; otherwise at its own.
        mine = list(range(batch_size) if rows is None else rows)
        self._seen, self._own = (list(range(batch_size)), mine) if buckets else (mine, list(range(len(mine))))

    @property
    def examples_per_epoch(self) -> int:
        """Records of all sources together."""
        return sum(len(records) for records in self._records)

    def __getitem__(self, step: int) -> Batch:
        """This process's share of the batch of a step, counted from 0.

        Raises:
          JclipError: a picture cannot be read, and `max_unreadable` are replaced already.
        """
        seen = [step * self._batch_size + row for row in self._seen]
        batch = self._parallel_batch(seen) if self._teacher_text else self._pair_batch(seen)
        batch["example"] = (np.array([seen[i] for i in self._own], np.int64) % _INT32).astype(np.int32)
        return batch

    def __call__(self, step: int) -> Batch:
        """The same as indexing."""
        return self[step]

    def iterate(self, start_step: int = 0, ahead: int = 2) -> Generator[Batch, None, None]:
        """Batches from a step on, without end, made by a thread that stays `ahead` of the reader."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(ahead)
        stop = threading.Event()

        def make() -> None:
            step = start_step
            while not stop.is_set():
                try:
                    made: Batch | BaseException = self[step]
                except BaseException as error:  # the reader raises it
                    made = error
                while not stop.is_set():
                    try:
                        ready.put(made, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(made, BaseException):
                    return
                step += 1

        thread = threading.Thread(target=make, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            stop.set()
            thread.join()

    def _pair_batch(self, examples: Sequence[int]) -> Batch:
        own = [examples[i] for i in self._own]
        # A picture that is replaced brings another text: where texts of other processes count, so do their pictures.
        read = {example: self._read(example) for example in (examples if self._max_unreadable else own)}
        drawn = [read[example][0] if example in read else self._draw(example) for example in examples]
        return {
            "image": np.stack([read[example][1] for example in own]),
            "text": self._text([each.caption for each in drawn])[self._own],
            "image_id": self._ids([(drawn[i].source, drawn[i].image_id) for i in self._own]),
            "text_id": self._ids([(drawn[i].source, drawn[i].text_id) for i in self._own]),
        }

    def _draw(self, example: int) -> _Drawn:
        source, number = self._order[example]
        pair, draw = self._records[source][number], self._order.draw(example)
        which = int(draw.integers(len(pair.pictures)))
        caption = pair.captions[draw.integers(len(pair.captions))]
        return _Drawn(source, number, which, pair.pictures[which], caption, pair.image_ids[which], pair.text_id)

    def _read(self, example: int) -> tuple[_Drawn, np.ndarray]:
        """What an example draws and its picture; if that cannot be read, those of the same place an epoch later."""
        for epoch in range(_TRIES):
            drawn = self._draw(example + epoch * self.examples_per_epoch)
            try:
                return drawn, self._array(drawn, example)
            except JclipError as error:
                self._note(drawn, error)
        raise JclipError(
            f"example {example}: {_TRIES} records in turn have pictures that cannot be read: repair the data"
        )

    def _note(self, drawn: _Drawn, error: JclipError) -> None:
        key = drawn[:3]
        if key in self._known_unreadable:
            return
        if len(self._known_unreadable) >= self._max_unreadable:
            limit = f"stages.{self._stage}.max_unreadable (now {self._max_unreadable})"
            raise JclipError(
                f"{error}: repair or remove it, or raise {limit}: so many are replaced by others"
            ) from None
        self._known_unreadable.add(key)
        self.unreadable.append(str(error))

    def _parallel_batch(self, examples: Sequence[int]) -> Batch:
        assert self._teacher_text is not None
        english, student = [], []
        for example in examples:
            source, number = self._order[example]
            texts, share = self._records[source][number], self._english_shares[source]
            itself = self._order.draw(example).random() < share
            english.append(texts.english)
            student.append(texts.english if itself else texts.other)
        return {"student": self._text(student)[self._own], "teacher": self._teacher_text(english)[self._own]}

    def _array(self, drawn: _Drawn, example: int) -> np.ndarray:
        source, picture = self._sources[drawn.source], drawn.picture
        name = str(picture) if isinstance(picture, str | Path) else f"the picture of record {drawn.number}"
        return self._decode(picture, example, f"{getattr(source, 'folder', source)}: {name}")

    def _ids(self, numbers: Sequence[tuple[int, int]]) -> np.ndarray:
        """Numbers within sources as numbers over all: each source has its own part of the int32 range."""
        part = _INT32 // len(self._sources)
        return np.array([source * part + number % part for source, number in numbers], np.int64).astype(np.int32)


class _Texts:
    """Tokenises and pads, remembering texts it has seen: captions come again every epoch."""

    def __init__(self, tokenizer: Tokenizer, context_length: int, buckets: Sequence[int]):
        self._tokenizer, self._context_length = tokenizer, context_length
        self._lengths = sorted({min(bucket, context_length) for bucket in buckets} | {context_length})
        self._ids: dict[str, list[int]] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in self._ids))
        if len(self._ids) + len(new) > _REMEMBERED:
            self._ids.clear()
            new = list(dict.fromkeys(texts))
        if new:
            self._ids.update(zip(new, self._tokenizer.encode(new, self._context_length), strict=True))
        ids = [self._ids[text] for text in texts]
        longest = max(map(len, ids))
        length = next(each for each in self._lengths if each >= longest)
        return pad(ids, length, self._tokenizer.pad_id)
