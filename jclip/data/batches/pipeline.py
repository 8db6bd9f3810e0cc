"""Batches by number: `Batches[step]` is a pure function of (seed, stage, step), so any step can be had again.

Axes: b batch (this process's share of it), h height, w width, c channels, l tokens, d features.
"""

import copy
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jclip.data.batches.ahead import ahead
from jclip.data.batches.cache import DamagedCache
from jclip.data.batches.mixing import Order
from jclip.data.batches.units import Captions, Group, Unit, groups
from jclip.data.batches.windows import Windows
from jclip.data.sources.any_source import ParallelSource, Source
from jclip.data.sources.folders import PairFolder, Records
from jclip.errors import JclipError
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.images.preprocess import Picture, Preprocessing
from jclip.tokenizers.padding import Texts
from jclip.tokenizers.text import Tokenizer

Batch = dict[str, np.ndarray]

_INT32 = 2**31
_TRIES = 64  # records that one after another prove unreadable: then the data is to blame, not a record


class Features(Protocol):
    """What a frozen tower makes of a source, see `jclip.data.batches.cache`."""

    def row(self, record: int, picture: int = 0) -> np.ndarray:
        """Of one picture of a record, or of its English text: (d,).

        Raises:
          JclipError: it could not be read, when the tower was to.
        """


class _Trouble(NamedTuple):
    """Something that cannot be read: which (source, record, picture; -1 for the record itself), and why."""

    where: tuple[int, int, int]
    why: str


class _Made(NamedTuple):
    """A step's batch, what could not be read on the way, and what else went wrong; there is a batch or an error."""

    batch: Batch | None
    troubles: tuple[_Trouble, ...]
    error: JclipError | None = None


class _Drawn(NamedTuple):
    """What an example takes from a record: one of its pictures, one of its captions."""

    source: int
    record: int
    which: int
    picture: Picture
    caption: str
    image_id: int
    text_id: int


class Batches:
    """The batches of a stage.

    A contrastive batch holds "image" uint8 (b, h, w, 3), "text" ids (b, l), "image_id" and "text_id" (b,), identities
    of the picture and of the meaning; a text of two data folders has one. A teacher batch holds "student" ids (b, l)
    and "teacher" ids (b, m). Both hold "example" (b,), the global example index modulo 2^31. Integers are int32, as on
    the device.

    With `features`, "image_feature" (b, d) stands for "image", and "target" (b, d) for "teacher", float32.

    Args:
      sources: all of pictures with captions, or all of parallel text; mixed by their weights.
      batch_size: over all processes.
      seed, stage: of the run, and the stage's number; they decide the order.
      tokenizer: of the tower that trains.
      context_length: tokens, special ones included.
      buckets: shorter lengths, ascending: a batch is padded to the first in which its longest text fits.
      bucket_window: so many steps in a row are made of texts sorted by bucket, see `Windows`; 1 for no sorting.
      captions, language_temperature: what is an example, and how often each language comes, see `units.groups`.
      preprocessing: of pictures.
      augmentation: what is done to pictures while they are decoded.
      teacher_tokenizer, teacher_context_length: of the teacher, for parallel text.
      max_unreadable: so many records, or pictures of records, that cannot be read are replaced by what stands at the
        same place one epoch later (or two, …), so that a batch depends on the step alone; one more is an error. Each
        counts once.
      workers: processes that make batches; 0 for a thread of this one.
      rows: which rows of every batch are made, where several processes share it; None for all.

    Attributes:
      unreadable: what was replaced so far, in words, each once.
      features: of each source, see `with_features`; None: the batch holds what the tower reads.

    Raises:
      JclipError: no or empty sources, sources of both kinds, or languages that are not known but needed.
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
        bucket_window: int = 1,
        captions: Captions = "one",
        language_temperature: float | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 (frozen)
        augmentation: HostAugmentation = HostAugmentation(),  # noqa: B008 (frozen)
        teacher_tokenizer: Tokenizer | None = None,
        teacher_context_length: int | None = None,
        max_unreadable: int = 0,
        workers: int = 0,
        rows: Sequence[int] | None = None,
    ):
        self.records = open_sources(sources, preprocessing)
        self._teacher_text: Texts | None = None
        if isinstance(sources[0], ParallelSource):
            if teacher_tokenizer is None or teacher_context_length is None:
                raise JclipError("parallel text is for teacher learning: name the teacher's bundle")
            self._teacher_text = Texts(teacher_tokenizer, teacher_context_length)
        self._text = Texts(tokenizer, context_length, buckets)
        self._sources, self._decode = sources, Decoder(preprocessing, augmentation, seed, stage)
        self._numberings = _numberings(sources)
        self._english_shares = [each.english_share for each in sources if isinstance(each, ParallelSource)]
        self._groups: list[Group] = groups(sources, self.records, captions, language_temperature)
        counts, weights = [group.count for group in self._groups], [group.weight for group in self._groups]
        self._order = Order(counts, weights, seed, stage)
        self._windows = Windows(batch_size, bucket_window, (seed, stage), self._buckets)
        self._stage, self._max_unreadable, self._workers = stage, max_unreadable, workers
        self.unreadable: list[str] = []
        self._known_unreadable: set[tuple[int, ...]] = set()
        self.features: Sequence[Features] | None = None
        # Processes must agree on the bucket, so that with buckets each looks at all texts; otherwise at its own.
        mine = list(range(batch_size) if rows is None else rows)
        self._seen, self._own = (list(range(batch_size)), mine) if buckets else (mine, list(range(len(mine))))

    @property
    def examples_per_epoch(self) -> int:
        """Units of all sources together: records, or pairs."""
        return sum(group.count for group in self._groups)

    def __getitem__(self, step: int) -> Batch:
        """This process's share of the batch of a step, counted from 0.

        Raises:
          JclipError: something cannot be read, and `max_unreadable` are replaced already.
        """
        return self._taken(self.make(step))

    def __call__(self, step: int) -> Batch:
        """The same as indexing."""
        return self[step]

    def too_many(self, unreadable: Sequence[str]) -> JclipError | None:
        """The error that names the first, in words, beyond `max_unreadable`; None where it is not passed."""
        if len(unreadable) <= self._max_unreadable:
            return None
        limit = f"stages.{self._stage}.max_unreadable (now {self._max_unreadable})"
        first = unreadable[self._max_unreadable]
        return JclipError(f"{first}: repair or remove it, or raise {limit}: so many are replaced by others")

    def with_features(self, features: Sequence[Features]) -> "Batches":
        """Returns the same batches with the features of a frozen tower, one cache per source, instead of its inputs."""
        cached = copy.copy(self)
        cached.features = features
        return cached

    def iterate(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """Batches from a step on, without end, made ahead of the reader by a thread or by worker processes."""
        with closing(ahead(self.make, start_step, self._workers)) as made:
            for one in made:
                yield self._taken(_Made(*one))

    def make(self, step: int) -> _Made:
        """A step's batch, or what went wrong, as data: it may have been made in another process."""
        troubles: list[_Trouble] = []
        try:
            examples = self._windows[step]
            seen = [examples[row] for row in self._seen]
            make = self._parallel_batch if self._teacher_text else self._pair_batch
            batch = make(seen, troubles)
        except JclipError as error:
            return _Made(None, tuple(troubles), error)
        batch["example"] = (np.array([seen[i] for i in self._own], np.int64) % _INT32).astype(np.int32)
        return _Made(batch, tuple(troubles))

    def _taken(self, made: _Made) -> Batch:
        """The batch, once what could not be read is noted and found not to be too much."""
        for where, why in made.troubles:
            if tuple(where) in self._known_unreadable:
                continue
            if error := self.too_many([*self.unreadable, why]):
                raise error
            self._known_unreadable.add(tuple(where))
            self.unreadable.append(why)
        if made.error is not None:
            raise made.error
        assert made.batch is not None
        return made.batch

    def _pair_batch(self, examples: Sequence[int], troubles: list[_Trouble]) -> Batch:
        own = [examples[i] for i in self._own]
        # All are drawn before any is decoded: in turns, each would find the other's code and data gone from the cache.
        first = {example: self._draw(example, troubles) for example in examples}
        # A picture that is replaced brings another text: where texts of other processes count, so do their pictures.
        wanted = examples if self._max_unreadable else own
        read = {example: self._read(example, first[example], troubles) for example in wanted}
        drawn = [read[example][0] if example in read else first[example] for example in examples]
        return {
            "image" if self.features is None else "image_feature": np.stack([read[example][1] for example in own]),
            "text": self._text([each.caption for each in drawn])[self._own],
            "image_id": self._ids([(drawn[i].source, drawn[i].image_id) for i in self._own]),
            "text_id": self._ids([(drawn[i].source, drawn[i].text_id) for i in self._own]),
        }

    def _parallel_batch(self, examples: Sequence[int], troubles: list[_Trouble]) -> Batch:
        assert self._teacher_text is not None
        taken = [self._sentence(example, troubles) for example in examples]
        own = [taken[i] for i in self._own]
        batch = {"student": self._text([student for _, _, student in taken])[self._own]}
        if self.features is None:
            return {**batch, "teacher": self._teacher_text([english for _, english, _ in own])}
        rows = [self.features[unit.source].row(unit.record) for unit, _, _ in own]
        return {**batch, "target": np.stack(rows)}

    def _buckets(self, examples: Sequence[int]) -> np.ndarray:
        """The bucket of each example's text, (n,); for what cannot be read, of what replaces it."""
        ignored: list[_Trouble] = []  # whoever makes the batch will note it
        if self._teacher_text:
            return self._text.buckets([self._sentence(example, ignored)[2] for example in examples])
        return self._text.buckets([self._draw(example, ignored).caption for example in examples])

    def _record(self, example: int, troubles: list[_Trouble]) -> tuple[int, Unit, Any]:
        """Where an example stands, and its unit and record; if that cannot be read, those an epoch later."""
        for epoch in range(_TRIES):
            place = example + epoch * self.examples_per_epoch
            group, number = self._order[place]
            unit = self._groups[group].unit(number)
            try:
                return place, unit, self.records[unit.source][unit.record]
            except JclipError as error:
                troubles.append(_Trouble((unit.source, unit.record, -1), str(error)))
        raise JclipError(f"example {example}: {_TRIES} records in turn cannot be read: repair the data")

    def _sentence(self, example: int, troubles: list[_Trouble]) -> tuple[Unit, str, str]:
        """The unit that an example takes, what the teacher reads of it, and what the student reads."""
        place, unit, texts = self._record(example, troubles)
        itself = self._order.draw(place).random() < self._english_shares[unit.source]
        return unit, texts.english, texts.english if itself else texts.other

    def _draw(self, example: int, troubles: list[_Trouble]) -> _Drawn:
        place, unit, pair = self._record(example, troubles)
        draw = self._order.draw(place)
        which = int(draw.integers(len(pair.pictures))) if unit.picture is None else unit.picture
        if unit.caption is not None:
            chosen = unit.caption
        elif unit.language is not None and pair.languages:
            ours = [number for number, language in enumerate(pair.languages) if language == unit.language]
            # There may be none in a record that could not be read when its languages were looked for, and can be now.
            chosen = ours[draw.integers(len(ours))] if ours else int(draw.integers(len(pair.captions)))
        else:
            chosen = int(draw.integers(len(pair.captions)))
        text_id = pair.text_ids[chosen] if pair.text_ids else pair.text_id
        return _Drawn(
            unit.source, unit.record, which, pair.pictures[which], pair.captions[chosen], pair.image_ids[which], text_id
        )

    def _read(self, example: int, drawn: _Drawn, troubles: list[_Trouble]) -> tuple[_Drawn, np.ndarray]:
        """What an example draws and its picture; if that cannot be read, those of the same place an epoch later."""
        for epoch in range(_TRIES):
            if epoch:
                drawn = self._draw(example + epoch * self.examples_per_epoch, troubles)
            try:
                return drawn, self._array(drawn, example)
            except DamagedCache:
                raise
            except JclipError as error:
                troubles.append(_Trouble(drawn[:3], str(error)))
        raise JclipError(
            f"example {example}: {_TRIES} records in turn have pictures that cannot be read: repair the data"
        )

    def _array(self, drawn: _Drawn, example: int) -> np.ndarray:
        if self.features is not None:
            return self.features[drawn.source].row(drawn.record, drawn.which)
        name = picture_name(self._sources[drawn.source], self.records[drawn.source], drawn.record, drawn.picture)
        return self._decode(drawn.picture, example, name)

    def _ids(self, numbers: Sequence[tuple[int, int]]) -> np.ndarray:
        """Identities within sources as numbers over all: each numbering has its own part of the int32 range."""
        part = _INT32 // (max(self._numberings) + 1)
        found = [self._numberings[source] * part + number % part for source, number in numbers]
        return np.array(found, np.int64).astype(np.int32)


def _numberings(sources: Sequence[Source]) -> list[int]:
    """Returns, for each source, the number of its numbering: data folders share one, others have their own."""
    kinds = ["folder" if isinstance(source, PairFolder) else number for number, source in enumerate(sources)]
    return [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]


def open_sources(sources: Sequence[Source], preprocessing: Preprocessing) -> list[Sequence[Any]]:
    """The records of a stage's sources.

    Raises:
      JclipError: none, sources of both kinds, or one that is empty, cannot be opened or has no weight.
    """
    if not sources:
        raise JclipError("there is no data: give the stage at least one source")
    parallel = [isinstance(source, ParallelSource) for source in sources]
    if any(parallel) and not all(parallel):
        raise JclipError("pictures with captions and parallel text do not mix in one stage: make it two stages")
    opened: list[Sequence[Any]] = [source.open(preprocessing) for source in sources]
    for source, records in zip(sources, opened, strict=True):
        if not len(records):
            raise JclipError(f"{source} is empty")
        if not source.weight > 0:
            raise JclipError(f"{source}: its weight must be above 0")
    return opened


def picture_name(source: Source, records: Sequence[Any], record: int, picture: Picture) -> str:
    """What an error calls a picture: its file, or its record with the shard and the place in it."""
    if isinstance(picture, str | Path):
        name = str(picture)
    else:
        name = f"the picture of record {record}{records.where(record) if isinstance(records, Records) else ''}"
    return f"{getattr(source, 'folder', source)}: {name}"
