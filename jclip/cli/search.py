"""`jclip search INDEX QUERY…`."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jclip.cli.index_model import index_model, named_model
from jclip.cli.options import read
from jclip.cli.search_output import FORMS, Found, Groups, Hits, images, table
from jclip.console import Console
from jclip.errors import JclipError
from jclip.images.preprocess import Orientation
from jclip.io.files import check_writable
from jclip.names import TowerName
from jclip.search.filters import Filter, parse_comparison, parse_time
from jclip.search.index import Index, read_facts
from jclip.search.page import write_page
from jclip.search.queries import Query, parse_query
from jclip.search.searching import Searcher, check_page
from jclip.search.stores.addresses import Address, is_address, parse_address
from jclip.search.stores.opening import open_store
from jclip.search.stores.pushing import source_of
from jclip.search.stores.searching import StoreSearcher, known_facts

_HITS = 10


@dataclass(frozen=True)
class SearchOptions:
    """Finds images and texts of INDEX, which `jclip embed` wrote, by a text in any language or by an image.

    A QUERY may be a sum or difference of several, with weights:

      jclip search photos.index 狗 + 雪 - 人
      jclip search photos.index 2:红色 + car
      jclip search photos.index beach.jpg - 人

    An operator is a + or - with spaces on both sides. A weight is a number with a colon directly before the text, which
    begins with neither a space nor a digit. So C++, a-b, 3:2 and 2001: A Space Odyssey are plain texts. An image is the
    path of an image file; or @PATH, for a file of any other name. To search for an operator or a weight itself, put the
    text in double quotes, and those in single quotes for the shell: '"a - b"' or '"2:red"'. Two double quotes in a
    quoted text are one.

    INDEX may also be the address of a database, to which `jclip index INDEX --to ADDRESS` has copied indexes:
    pgvector://USER@HOST/DATABASE, milvus://HOST:PORT or milvus:FILE.db, and ?table=NAME. With --to, a search finds only
    the entries of INDEX there.

    Hits are in the order of their cosine similarity. Copies of one image are hits of their own. The search is exact,
    unless --ann is given. For a query that begins with a minus without a space, write -- before it.

    --duplicates needs no QUERY. It prints groups of images that are equal or similar, the largest first. Each image is
    similar to the first one of its group, so a chain of small changes is not one group. The time grows with the square
    of the number of images.

    Attributes:
      index: folder that `jclip embed` wrote, or the address of a database.
      query: words of the query.
      k: maximum number of hits, or of groups; by default 10 hits, or all groups.
      offset: number of better hits, or larger groups, to leave out.
      folder: only entries in this folder, its subfolders, or this tar.
      after: only entries of this date or time or later, such as 2024-05-01. The time of an image is that of its camera,
        else that of the last change of its file. Without a time zone it is local time.
      before: only entries of this date or earlier, the day included; or before this time.
      kind: only images or only texts.
      where: only entries with these metadata: NAME=VALUE, or with !=, <, <=, >, >= between them; repeatable. A list
        meets a condition if one of its items does. An entry without the name meets != only.
      duplicates: find near duplicates.
      threshold: least cosine similarity of near duplicates.
      model: model to use instead of the one that the index names. It must have the same contents.
      to: address of a database that holds a copy of INDEX, to search there.
      ann: use the approximate index of `jclip index INDEX --ann`; in an index, searches with a filter stay exact.
      paths: print paths alone, one on each line. A group ends with an empty line.
      null: print paths alone, as they are in the file system, each with a NUL character after it; for xargs -0.
      json: print JSON.
      html: write a page with thumbnails to this new file.
      show: print images, if the terminal is known to support it; or never; or by this protocol.
    """

    index: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="INDEX")]]
    query: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="QUERY…", help_behavior_hint="")]] = ()
    k: int | None = None
    offset: int = 0
    folder: Path | None = None
    after: str | None = None
    before: str | None = None
    kind: Literal["image", "text"] | None = None
    where: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="")
    ] = ()
    duplicates: bool = False
    threshold: float = 0.95
    model: str | None = None
    to: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    ann: bool = False
    paths: bool = False
    null: Annotated[bool, tyro.conf.arg(aliases=["-0"])] = False
    json: bool = False
    html: Path | None = None
    show: Literal["auto", "no", "kitty", "iterm2", "sixel"] = "auto"

    def check(self) -> Query | None:
        """Returns the query, None for near duplicates. Raises JclipError if options contradict each other."""
        forms = [name for name in (*FORMS, "html") if getattr(self, name)]
        if len(forms) > 1:
            raise JclipError(f"--{forms[0]} and --{forms[1]} are two forms of output: give one of them")
        check_page(1 if self.k is None else self.k, self.offset)
        if self.html is not None:
            check_writable(self.html)
        if not self.duplicates:
            return parse_query(self.query, files=True)
        if self.query:
            raise JclipError("--duplicates takes no query: omit one of them")
        if self.ann:
            raise JclipError("--duplicates is always exact: omit --ann")
        if self.address() is not None:
            raise JclipError("--duplicates compares the entries of an index: give its folder, not a database")
        return None

    def address(self) -> Address | None:
        """Returns the address of the database to search in; None for the index itself."""
        if is_address(self.index):
            if self.to is not None:
                raise JclipError("INDEX and --to are two databases: give one of them")
            return parse_address(self.index)
        if self.to is None:
            return None
        read_facts(Path(self.index))
        address = parse_address(self.to)
        return replace(address, source=source_of(address, Path(self.index)))

    def filter(self) -> Filter | None:
        """Returns the filter; None without conditions. Raises JclipError if a condition is not valid."""
        found = Filter(
            folder=None if self.folder is None else os.path.abspath(self.folder),
            since=None if self.after is None else parse_time(self.after),
            before=None if self.before is None else parse_time(self.before, end=True),
            kind=self.kind,
            meta=tuple(map(parse_comparison, self.where)),
        )
        return None if found == Filter() else found


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    options = read(SearchOptions, arguments, "jclip search")
    query, condition = options.check(), options.filter()
    console = Console(stderr=True)
    with console.working("searching") as say:
        address = options.address()
        if address is None:
            found, orientation = _in_index(options, query, condition, say)
        else:
            assert query is not None, "near duplicates are refused by check"
            found, orientation = _in_store(options, address, query, condition, say)
    if options.html is not None:
        write_page(options.html, found.title, found.sections(), orientation)
        console.tell(f"{options.html}: written")
    else:
        show = next((form for name, form in FORMS.items() if getattr(options, name)), table)
        show(found, images(options.show, os.environ), orientation)
    return 0


def _in_index(
    options: SearchOptions, query: Query | None, condition: Filter | None, say: Callable[[str], None]
) -> tuple[Found, Orientation]:
    with Index.open(options.index) as index:
        if query is None:
            return _duplicates(options, Searcher(index), condition, say), index.facts.orientation
        return _hits(options, _searcher(options, index, query, say), query, condition), index.facts.orientation


def _in_store(
    options: SearchOptions, address: Address, query: Query, condition: Filter | None, say: Callable[[str], None]
) -> tuple[Found, Orientation]:
    with closing(open_store(address)) as store:
        facts = known_facts(store)
        say("loading the model")
        model = named_model(facts, address, options.model, _tower(query))
        say("searching")
        return _hits(options, StoreSearcher(store, model, options.ann), query, condition), facts.orientation


def _searcher(options: SearchOptions, index: Index, query: Query, say: Callable[[str], None]) -> Searcher:
    """Returns the searcher, with the towers that the query needs."""
    ann = None
    if options.ann:
        from jclip.search.ann import open_ann

        ann = open_ann(index)
    say("loading the model")
    model = index_model(index, options.model, _tower(query))
    say("searching")
    return Searcher(index, model, ann)


def _tower(query: Query) -> TowerName | None:
    """Returns the tower that a query needs; None if it needs both."""
    return next(iter(query.towers)) if len(query.towers) == 1 else None


def _hits(options: SearchOptions, searcher: Searcher | StoreSearcher, query: Query, condition: Filter | None) -> Hits:
    k = _HITS if options.k is None else options.k
    found = searcher.search(query, k + 1, options.offset, condition)
    return Hits(" ".join(options.query), options.offset, found[:k], len(found) > k)


def _duplicates(
    options: SearchOptions, searcher: Searcher, condition: Filter | None, say: Callable[[str], None]
) -> Groups:
    def report(done: int, total: int) -> None:
        say(f"comparing: {done:,} of {total:,}")

    k = None if options.k is None else options.k + 1
    found = searcher.near_duplicates(options.threshold, k, options.offset, condition, report)
    title = f"near duplicates, from cosine {options.threshold:g}"
    return Groups(title, options.offset, found[: options.k], options.k is not None and len(found) > options.k)
