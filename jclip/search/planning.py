"""Plans the work of embedding: lists the sources, and compares them with the index that is updated."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jclip.errors import JclipError
from jclip.search.entries import MEMBER
from jclip.search.sources.given import LIST, Gone, Piece, Source, check_there, pieces
from jclip.search.sources.items import Container, Item, Lost, file_stamp
from jclip.search.sources.walking import UNLISTED, Found, Other
from jclip.search.work import Work

_REFUSED = "the container cannot be read"


@dataclass
class Plan:
    """Result of planning.

    Attributes:
      listers: containers that were listed; `lister` of a planned item is an index into them.
      others: number of files that are not images.
      gone: ids of sources that do not exist any more.
    """

    listers: list[Container] = field(default_factory=list)
    others: int = 0
    gone: list[int] = field(default_factory=list)


def plan_work(
    work: Work,
    sources: Sequence[Source],
    read_list: Callable[[], list[bytes]],
    check: Callable[[Container], None],
    *,
    drop_missing: bool = False,
    say: Callable[[str], None] = lambda words: None,
) -> Plan:
    """Fills the plan of the work.

    Args:
      work: work with an empty plan.
      sources: sources to look at; those of the index if there are none.
      read_list: returns the paths on standard input.
      check: raises JclipError for a container that must not be used.
      drop_missing: take the entries of a source that does not exist any more as gone.
      say: called with the name of each source.

    Raises:
      JclipError: a source does not exist, or has no images any more, unless `drop_missing`; or a container that is a
        source cannot be read.
    """
    plan = Plan()
    remembered = [Source(*row) for row in work.rows("SELECT kind, place FROM base.sources ORDER BY id")]
    for source in sources or remembered:
        say(f"listing {source.name}")
        lister = _Lister(work, plan, source, check)
        listed = []
        if source.kind == LIST:
            listed = read_list() if sources else lister.listed_before()
        try:
            check_there(source)
        except Gone as error:
            if source not in remembered:
                raise
            if not (drop_missing or lister.was_file()):
                raise Gone(f"{error}; --drop-missing drops its {lister.entries_before():,} entries") from None
            plan.gone.append(lister.id)
            continue
        with work.transaction():
            for piece in pieces(source, listed):
                lister.take(piece)
        if not drop_missing and lister.is_empty and lister.entries_before():
            raise Gone(
                f"{source.name} has no images any more, but the index has {lister.entries_before():,} entries of it: "
                "mount its disk, or drop them with --drop-missing"
            )
    work.settle()
    return plan


class _Lister:
    """Lister of one source.

    Attributes:
      id: id of the source in the index.
      is_empty: False if anything was found that is embedded, or that keeps entries.
    """

    def __init__(self, work: Work, plan: Plan, source: Source, check: Callable[[Container], None]):
        self._work, self._plan, self._source, self._check = work, plan, source, check
        known = work.rows("SELECT id FROM base.sources WHERE kind = ? AND place = ?", source)
        self.id = known[0][0] if known else _next_id(work, "scope", "sources")
        work.rows("INSERT OR IGNORE INTO scope VALUES (?, ?, ?)", (self.id, *source))
        self._containers: dict[tuple[str, bytes], int] = {}
        self.is_empty = True

    def entries_before(self) -> int:
        return self._work.number("SELECT count(*) FROM base.entries WHERE source = ?", (self.id,))

    def was_file(self) -> bool:
        """Returns True if the source was a file, and the folder that it was in still has other files."""
        place = self._source.place
        was = "SELECT 1 FROM base.entries WHERE path = ?1 UNION ALL SELECT 1 FROM base.containers WHERE place = ?1"
        try:
            return bool(self._work.rows(was, (place,)) and os.listdir(os.path.dirname(place)))
        except OSError:
            return False

    def listed_before(self) -> list[bytes]:
        """Returns the paths of an earlier list."""
        rows = self._work.rows(
            "SELECT DISTINCT coalesce(c.place, e.path) FROM base.entries e LEFT JOIN base.containers c "
            "ON c.id = e.container WHERE e.source = ?1 UNION SELECT path FROM base.skipped WHERE source = ?1",
            (self.id,),
        )
        return sorted({place for (place,) in rows if isinstance(place, bytes) and place and b"\0" not in place})

    def take(self, piece: Piece) -> None:
        """Adds a file or a container to the plan."""
        if isinstance(piece, Other):
            self._plan.others += 1
        elif isinstance(piece, Lost):
            self._lose(piece)
        elif isinstance(piece, Found):
            self.is_empty = False
            size, mtime_ns = piece.status.st_size, piece.status.st_mtime_ns
            item = Item(piece.path, file_stamp(piece.status), size=size, mtime_ns=mtime_ns)
            self._work.add(item, self.id, None, None)
        else:
            self._take_container(piece)

    def _take_container(self, container: Container) -> None:
        place = os.fsencode(container.place)
        try:
            self._check(container)
            stamp = container.stamp()
            if self._is_unchanged(container.kind, place, stamp):
                self.is_empty = False
                return
            self._plan.listers.append(container)
            number = len(self._plan.listers) - 1
            for item in container.items():
                if isinstance(item, Lost):
                    self._lose(item)
                else:
                    self.is_empty = False
                    own = item.container
                    its = None if own is None else self._container(*own, stamp if own[1] == place else b"")
                    self._work.add(item, self.id, number, its)
        except OSError as error:
            self._lose(Lost(place, UNLISTED, error.strerror or str(error), folder=True))
        except JclipError as error:
            if place == self._source.place:
                raise
            self._lose(Lost(place, _REFUSED, str(error)))

    def _lose(self, lost: Lost) -> None:
        self._work.lose(lost, self.id)
        self.is_empty = self.is_empty and not lost.folder

    def _is_unchanged(self, kind: str, place: bytes, stamp: bytes) -> bool:
        """Returns True, and keeps its entries, if a container is unchanged and all of it could be read before."""
        known = self._work.rows(
            "SELECT id FROM base.containers WHERE kind = ? AND place = ? AND stamp = ?", (kind, place, stamp)
        )
        below = place + MEMBER.encode()
        lost = "SELECT 1 FROM base.skipped WHERE path = ? OR substr(path, 1, ?) = ? LIMIT 1"
        if not known or self._work.rows(lost, (place, len(below), below)):
            return False
        self._work.rows("INSERT OR IGNORE INTO kept_containers VALUES (?)", known[0])
        return True

    def _container(self, kind: str, place: bytes, stamp: bytes) -> int:
        """Returns the id of a container in the index."""
        if (kind, place) not in self._containers:
            where = "WHERE kind = ? AND place = ?"
            known = [
                id
                for schema in ("main", "base")
                for (id,) in self._work.rows(f"SELECT id FROM {schema}.containers {where}", (kind, place))
            ]
            id: int = known[0] if known else _next_id(self._work, "containers", "containers")
            self._work.rows("INSERT OR IGNORE INTO main.containers VALUES (?, ?, ?, ?)", (id, kind, place, stamp))
            self._containers[kind, place] = id
        return self._containers[kind, place]


def _next_id(work: Work, mine: str, base: str) -> int:
    return 1 + work.number(
        f"SELECT max(id) FROM (SELECT max(id) AS id FROM main.{mine} UNION ALL SELECT max(id) FROM base.{base})"
    )
