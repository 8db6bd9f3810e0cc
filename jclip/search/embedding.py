"""Embeds images and texts of any sources into an index, or updates one: the engine of `jclip embed`."""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from jclip import __version__
from jclip.errors import JclipError
from jclip.images.opening import cores
from jclip.images.preprocess import Orientation
from jclip.io.files import Unfinished, check_free, lasting_folder, whole_folder
from jclip.search.applying import SKIPPED, Changes, find_changes, write_new, write_update
from jclip.search.encoding import Embedder, Encoding, encode_pending
from jclip.search.index import FACTS, FORMAT, Index, IndexFacts
from jclip.search.planning import Plan, plan_work
from jclip.search.progress import Watcher
from jclip.search.schema import ENTRIES
from jclip.search.snapshots import Opened, Snapshots
from jclip.search.sources.given import Source, check_there, given_sources, read_list
from jclip.search.sources.items import Container
from jclip.search.work import Work
from jclip.search.writing import write_facts


class Skipped(NamedTuple):
    """Image that was skipped: its path, the reason, and details."""

    path: Path
    reason: str
    detail: str


@dataclass(frozen=True)
class EmbedReport:
    """Result of `embed`.

    Attributes:
      folder: path of the index.
      dry_run: True if nothing was written.
      entries: number of images and texts in the index.
      embedded: number of vectors that were computed, or with `dry_run` would be.
      new, changed, renamed, copied, unchanged, gone: numbers of entries. A copy has the content of another entry; a
        renamed one has that of an entry that is gone otherwise.
      skipped: images that cannot be read.
      others: number of files in the sources' folders that are not images.
      seconds: duration.
    """

    folder: Path
    dry_run: bool
    entries: int
    embedded: int
    new: int
    changed: int
    renamed: int
    copied: int
    unchanged: int
    gone: int
    skipped: tuple[Skipped, ...]
    others: int
    seconds: float


@dataclass(frozen=True)
class Options:
    """Options of `embed`, which documents them.

    Attributes:
      say: called with what begins, in a few words.
    """

    update: bool = False
    dry_run: bool = False
    orientation: Orientation | None = None
    workers: int | None = None
    batch_size: int = 256
    drop_missing: bool = False
    watch: Watcher | None = None
    say: Callable[[str], None] = lambda words: None
    snapshot: Opened | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise JclipError(f"{name} is {value}, but must be {least} or more: give another")


@dataclass(frozen=True)
class ModelSource:
    """Model that may not be opened yet.

    Attributes:
      open: opens it.
      is_chosen: True if the user chose it: then it is checked even if nothing must be encoded.
    """

    open: Callable[[], Embedder]
    is_chosen: bool = True


def embed(
    model: Embedder,
    sources: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    update: bool = False,
    dry_run: bool = False,
    orientation: Orientation | None = None,
    workers: int | None = None,
    batch_size: int = 256,
    drop_missing: bool = False,
    watch: Watcher | None = None,
    snapshot: Opened | None = None,
) -> EmbedReport:
    """Embeds images and texts into a new index, or updates one.

        jclip.search.embed(jclip.load("bundles/chinese-clip"), "photos", "photos.index")

    An interrupted call is resumed by the same call. Equal contents share a vector. Images that cannot be read are
    skipped and reported.

    Args:
      model: a loaded model.
      sources: folders, images, tars, data folders, text files with a text in each line, folders of clip-retrieval,
        other indexes, and patterns with ** and *; for an update, none for those of the index.
      folder: path of the index.
      update: update an index, or make it: embed what is new or changed, and drop what is gone.
      dry_run: find out what would be done, and write nothing.
      orientation: "apply" rotates images by their EXIF orientation, "ignore" does not; None for that of the index that
        is updated, or "apply".
      workers: number of processes that decode images; None for one on each core, 0 for a thread of this process.
      batch_size: number of images or texts that are encoded at once.
      drop_missing: for an update: drop the entries of a source that does not exist any more, instead of an error.
      watch: called with the progress a few times per second.
      snapshot: called now and then, while a new index is made, with the folder of an index of what is embedded so far.
        The function must open it: the folder is replaced by the next one, and removed in the end.

    Raises:
      JclipError: a source does not exist, or has nothing that can be embedded; the index exists and `update` is False,
        or it was made with another model or orientation; a file cannot be written; or features are not finite.
      Unfinished: a JclipError after which the same call resumes.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    options = Options(update, dry_run, orientation, workers, batch_size, drop_missing, watch, snapshot=snapshot)
    return embed_with(ModelSource(lambda: model), given, Path(folder), options)


def embed_with(model: ModelSource, words: Sequence[str | Path], folder: Path, options: Options) -> EmbedReport:
    """Embeds as `embed` does; opens the model only if something must be encoded. `words` name the sources."""
    begun = time.monotonic()
    folder = folder.absolute()
    sources = given_sources(words)
    if not options.update:  # before the model is loaded
        for source in sources:
            check_there(source)
    with ExitStack() as stack:
        index = None
        if options.update and os.path.lexists(folder):
            index = stack.enter_context(Index.open(folder))
        elif not sources:
            raise JclipError("there is no source: name a folder, a file or a list")
        elif (folder / FACTS).is_file():
            raise JclipError(f"{folder} is an index already: add --update, or choose another name")
        else:
            check_free(folder)
        opened = _Opened(model, index, options.say)
        facts = _facts(index, opened, options.orientation)
        work = stack.enter_context(_work(folder, index, facts, options.dry_run))

        def check(container: Container) -> None:
            if container.place == folder:
                raise JclipError(f"{folder} is the index itself: name its sources")
            container.check_model(facts.model_identity, facts.dim, facts.orientation)

        plan = plan_work(work, sources, read_list, check, drop_missing=options.drop_missing, say=options.say)
        if index is None and not work.rows("SELECT 1 FROM plan LIMIT 1"):
            raise _nothing(work, plan, sources)
        watch = options.watch
        if options.snapshot is not None and index is None and not options.dry_run:
            watch = Snapshots(work, plan, work.folder / "snapshot", facts, options.snapshot, watch)
        how = Encoding(
            None if options.dry_run else opened.model,
            facts.orientation,
            cores() if options.workers is None else options.workers,
            options.batch_size,
            watch,
        )
        embedded = encode_pending(work, plan.listers, how)
        if index is None and not work.rows("SELECT 1 FROM done WHERE key IS NOT NULL LIMIT 1"):
            raise _nothing(work, plan, sources)
        options.say("writing")
        changes = _written(work, plan, folder, index, facts, options.dry_run)
        counts = changes.counts
        entries = sum(counts[name] for name in ("new", "changed", "renamed", "copied", "unchanged"))
        if index is not None:
            entries = len(index) + counts["new"] + counts["copied"] - len(changes.gone)
        skipped = tuple(Skipped(Path(os.fsdecode(path)), *why) for path, *why, _ in work.rows(SKIPPED))
        seconds = time.monotonic() - begun
        return EmbedReport(
            folder, options.dry_run, entries, embedded, **counts, skipped=skipped, others=plan.others, seconds=seconds
        )


class _Opened:
    """Model that is opened on first use, and then checked against the index."""

    def __init__(self, source: ModelSource, index: Index | None, say: Callable[[str], None]):
        self.source, self._index, self._say = source, index, say
        self._model: Embedder | None = None

    def model(self) -> Embedder:
        if self._model is None:
            self._say("loading the model")
            self._model = self.source.open()
            if self._index is not None:
                self._index.check_model(self._model)
        return self._model


def _facts(index: Index | None, opened: _Opened, orientation: Orientation | None) -> IndexFacts:
    """Returns the facts of the index that is updated, or of a new one. Raises JclipError if they contradict."""
    if index is None:
        model = opened.model()
        return IndexFacts(
            model.identity, model.name, model.source or model.name, model.embed_dim, orientation or "apply",
            f"jclip {__version__}",
        )  # fmt: skip
    if orientation not in (None, index.facts.orientation):
        raise JclipError(
            f"{index.folder} was made with orientation {index.facts.orientation!r}, not {orientation!r}: give the same "
            "one, or make another index"
        )
    if opened.source.is_chosen:  # it may have another place now
        return replace(index.facts, model_source=opened.model().source or index.facts.model_source)
    return index.facts


@contextmanager
def _work(folder: Path, index: Index | None, facts: IndexFacts, dry_run: bool) -> Iterator[Work]:
    """Yields the work, which survives an error if it holds new vectors; that of a dry run is temporary."""
    base = None if index is None else folder / ENTRIES
    fingerprint = {"format": FORMAT, "model": facts.model_identity, "orientation": facts.orientation}
    if dry_run:
        with tempfile.TemporaryDirectory() as temporary, closing(Work(Path(temporary), base, fingerprint)) as work:
            yield work
        return
    with lasting_folder(folder) as lasting, closing(Work(lasting, base, fingerprint)) as work:
        try:
            yield work
        except Unfinished:
            raise
        except JclipError as error:
            if work.rows("SELECT 1 FROM vectors LIMIT 1"):
                raise Unfinished(str(error)) from error
            raise


def _written(work: Work, plan: Plan, folder: Path, index: Index | None, facts: IndexFacts, dry_run: bool) -> Changes:
    if dry_run:
        changes = Changes(0 if index is None else index.vectors)
        deque(find_changes(work, changes), maxlen=0)
        return changes
    if index is not None:
        if facts != index.facts:
            write_facts(folder, facts)
        return write_update(work, plan, index)
    with whole_folder(folder, replace=False) as partial:
        write_facts(partial, facts)
        return write_new(work, plan, partial, facts.dim)


def _nothing(work: Work, plan: Plan, sources: Sequence[Source]) -> JclipError:
    """Returns the error for sources without anything that can be embedded."""
    names = ", ".join(source.name for source in sources[:3])
    skipped = work.rows(SKIPPED)
    if skipped:
        path, reason, detail, _ = skipped[0]
        return JclipError(
            f"{names}: none of {len(skipped):,} images can be read; the first is {os.fsdecode(path)}: {reason} "
            f"({detail})"
        )
    others = f", only {plan.others:,} other files" if plan.others else ""
    return JclipError(f"{names} has no images{others}: name a folder with images, or a text file")
