"""Search by text, image, vector or entry, near duplicates, and the values for filters."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from jclip.errors import JclipError
from jclip.images.preprocess import Orientation, Picture
from jclip.search.queries import Query, Term, parse_query
from jclip.search.searching import Hit, Searcher
from jclip.serve.encoding import Item
from jclip.serve.endpoint import Endpoint, Given
from jclip.serve.endpoints.conditions import FILTER, choices, filter_of
from jclip.serve.fields import Field, ListOf, Number, Record, Schema, Text, Whole
from jclip.serve.gallery import Gallery
from jclip.serve.images import ImageSource
from jclip.serve.refusals import Refusal, over_limit, wrong
from jclip.serve.responses import answered
from jclip.serve.service import Service

_MOST_AT_ONCE = 1000
_MOST_TERMS = 32
ID = Whole(0, 2**63 - 1)
"""Id of an entry."""

_HIT: Schema = {
    "type": "object",
    "required": ["id", "path", "kind", "score", "width", "height", "text", "meta"],
    "properties": {
        "id": {"type": "integer"},
        "path": {"type": "string"},
        "kind": {"enum": ["image", "text"]},
        "score": {"type": "number"},
        "width": {"type": ["integer", "null"]},
        "height": {"type": ["integer", "null"]},
        "text": {"type": ["string", "null"]},
        "meta": {"type": "object"},
    },
}
_MORE: Schema = {"type": "boolean"}


class Searching:
    """Endpoints that search the index."""

    def __init__(self, service: Service, gallery: Gallery):
        self._service, self._gallery = service, gallery
        self._choices: tuple[Any, dict[str, Any]] | None = None

    def endpoints(self) -> list[Endpoint]:
        """Returns the endpoints."""
        limits = self._service.limits
        text, image = Text(limits.max_characters, "--max-characters"), Text(form="image-uri")
        number = Number(-1e6, 1e6)
        term = Record(
            {"text": Field(text), "image": Field(image), "id": Field(ID), "weight": Field(number, default=1.0)},
            closed=True,
            exactly_one=("text", "image", "id"),
        )
        dim = self._service.model.embed_dim
        paging = {
            "k": Field(Whole(1, min(_MOST_AT_ONCE, limits.max_results)), "Number of results.", default=20),
            "offset": Field(Whole(0, limits.max_results), "Number of better results to leave out.", default=0),
        }
        asked = {
            "text": Field(text, 'Query in the language of `jclip search`: "狗 + 雪 - 人", "2:红色". Paths are texts.'),
            "image": Field(image, "Data URI of an image."),
            "id": Field(ID, "Id of an entry: finds similar ones, without itself."),
            "vector": Field(ListOf(Number(), dim, least=dim), "Vector of the model, of any length above 0."),
            "query": Field(ListOf(term, _MOST_TERMS), "Sum of weighted terms."),
        }
        hits = {"type": "array", "items": _HIT}
        return [
            Endpoint(
                "POST",
                "/search",
                "search",
                "Searches the index.",
                self._search,
                body=Record({**asked, **paging, "filter": Field(FILTER)}, closed=True, exactly_one=tuple(asked)),
                answer={
                    "type": "object",
                    "required": ["hits", "more", "took_ms"],
                    "properties": {"hits": hits, "more": _MORE, "took_ms": {"type": "number"}},
                },
                errors=(404, 413, 422, 424, 429, 503),
                about="Scores are cosine similarities. Copies of one content are hits of their own.",
            ),
            Endpoint(
                "GET",
                "/duplicates",
                "duplicates",
                "Returns groups of near duplicates, the largest first.",
                self._duplicates,
                parameters={
                    "threshold": Field(Number(0.5, 1), "Least cosine similarity.", default=0.95),
                    **paging,
                },
                answer={
                    "type": "object",
                    "required": ["groups", "more"],
                    "properties": {"groups": {"type": "array", "items": hits}, "more": _MORE},
                },
                errors=(413, 422, 429, 503),
            ),
            Endpoint(
                "GET",
                "/filters",
                "filters",
                "Returns the folders, metadata and dates by which a search can be filtered.",
                self._filters,
                answer={
                    "type": "object",
                    "required": ["folders", "meta", "dates"],
                    "properties": {
                        "folders": {"type": "array", "items": {"type": "string"}},
                        "meta": {
                            "type": "object",
                            "additionalProperties": {"type": "array", "items": {"type": "string"}},
                        },
                        "dates": {"type": "array", "items": {"type": "string"}},
                    },
                },
                errors=(429, 503),
            ),
        ]

    async def _search(self, given: Given, request: Request) -> Response:
        started = time.perf_counter()
        k, offset, filter = self._page(given), given["offset"], filter_of(given["filter"])
        if given["id"] is not None:
            entry_id = given["id"]
            await self._known(entry_id)
            hits = await self._run(lambda searcher: searcher.similar(entry_id, k + 1, offset, filter))
        else:
            vector = await self._vector(given)
            hits = await self._run(lambda searcher: searcher.search(vector, k + 1, offset, filter))
        took = 1000 * (time.perf_counter() - started)
        return answered({"hits": [hit.record() for hit in hits[:k]], "more": len(hits) > k, "took_ms": round(took, 1)})

    async def _duplicates(self, given: Given, request: Request) -> Response:
        k, offset, threshold = self._page(given), given["offset"], given["threshold"]
        with self._service.encoding.places(1):
            groups = await self._gallery.run_long(
                lambda searcher, report: searcher.near_duplicates(threshold, k + 1, offset, report=report)
            )
        return answered({"groups": [[hit.record() for hit in group] for group in groups[:k]], "more": len(groups) > k})

    async def _filters(self, given: Given, request: Request) -> Response:
        with self._service.encoding.places(1):
            return answered(await self._gallery.run(self._known_choices, slow=True))

    def _known_choices(self, searcher: Searcher) -> dict[str, Any]:
        if self._choices is None or self._choices[0] is not searcher:
            self._choices = searcher, choices(searcher.index)
        return self._choices[1]

    def _page(self, given: Given) -> int:
        """Returns "k". Raises Refusal if the page is beyond the reachable results."""
        last, most = given["offset"] + given["k"], self._service.limits.max_results
        if last > most:
            raise over_limit("offset + k", f"{last} results", str(most), "--max-results")
        return int(given["k"])

    async def _run(self, work: Any) -> list[Hit]:
        with self._service.encoding.places(1):
            return await self._gallery.run(work)

    async def _known(self, entry_id: int) -> np.ndarray:
        """Returns the vector of an entry. Raises Refusal, 404, if there is no such entry."""

        def find(searcher: Searcher) -> np.ndarray | None:
            index = searcher.index
            rows = index.query("SELECT vector FROM entries WHERE id = ?", (entry_id,))
            return index.vector(rows[0][0]).astype(np.float32) if rows else None

        found = await self._gallery.run(find)
        if found is None:
            raise Refusal(404, "no_entry", f"the index has no entry {entry_id}")
        return found

    async def _vector(self, given: Given) -> np.ndarray:
        """Returns the vector of a query. Raises Refusal."""
        if given["vector"] is not None:
            if not any(given["vector"]):
                raise wrong("vector", "all its numbers are 0")
            return np.asarray(given["vector"], np.float64)
        if given["image"] is not None:
            return await self._encoded([ImageSource(given["image"])], ["image"])
        if given["text"] is not None:
            try:
                terms = parse_query(given["text"]).terms
            except JclipError as error:
                raise wrong("text", str(error)) from None
            vectors = await self._encoded_all([str(term.content) for term in terms], ["text"] * len(terms))
            return _sum(vectors, [term.weight for term in terms], "text")
        terms = given["query"]
        places = [f"query[{number}]" for number in range(len(terms))]
        items = [_item(term) for term in terms]
        encoded = iter(
            await self._encoded_all(
                [item for item in items if item is not None],
                [place for place, item in zip(places, items, strict=True) if item is not None],
            )
        )
        vectors = [
            await self._known(term["id"]) if item is None else next(encoded)
            for term, item in zip(terms, items, strict=True)
        ]
        return _sum(vectors, [term["weight"] for term in terms], "")

    async def _encoded(self, items: Sequence[Item], places: Sequence[str]) -> np.ndarray:
        return (await self._encoded_all(items, places))[0]

    async def _encoded_all(self, items: Sequence[Item], places: Sequence[str]) -> list[np.ndarray]:
        found = await self._service.encoding.encode(items)
        for each, place in zip(found, places, strict=True):
            if isinstance(each, Refusal):
                raise each.within(place)
        return [each for each in found if not isinstance(each, Refusal)]


def _item(term: Given) -> Item | None:
    if term["image"] is not None:
        return ImageSource(term["image"])
    return str(term["text"]) if term["text"] is not None else None


class _Encoded:
    """Model that returns vectors which the queue has encoded already."""

    def __init__(self, vectors: Sequence[np.ndarray]):
        self._vectors_nd = np.stack(vectors)

    def encode_image(self, pictures: Sequence[Picture], /, *, orientation: Orientation | None = None) -> np.ndarray:
        raise AssertionError("every term is a text here")

    def encode_text(self, sentences: Sequence[str], /) -> np.ndarray:
        return self._vectors_nd


def _sum(vectors: Sequence[np.ndarray], weights: Sequence[float], where: str) -> np.ndarray:
    """Returns the weighted sum of vectors, as `Query.vector` computes it."""
    try:
        return Query(tuple(Term("", weight=weight) for weight in weights)).vector(_Encoded(vectors))
    except JclipError as error:
        raise wrong(where, str(error)) from None
