import numpy as np
import pytest

from jclip.search.index import Index
from jclip.search.queries import parse_query
from jclip.search.searching import Searcher
from tests.serve.services import IMAGES, drawn, error_of, image_uri, uri


@pytest.fixture(scope="module")
def searcher(place, model):
    return Searcher(Index.open(place / "index"), model)


def found(client, **body):
    response = client.post("/search", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def same(hits, wanted):
    assert [hit["id"] for hit in hits] == [hit.entry.id for hit in wanted]
    np.testing.assert_allclose([hit["score"] for hit in hits], [hit.score for hit in wanted], atol=1e-6)


def test_a_text_is_a_query(client, searcher, place):
    query = "红 + 2:猫 - 狗"
    hits = found(client, text=query, k=5)
    same(hits["hits"], searcher.search(parse_query(query), 5))
    assert hits["more"] and hits["took_ms"] >= 0
    assert hits["hits"][0].keys() == {"id", "path", "kind", "score", "width", "height", "text", "meta"}
    number = hits["hits"][0]["id"] - 1
    assert hits["hits"][0]["path"] == str(place / "images" / f"{number:02}.png")
    assert (hits["hits"][0]["text"], hits["hits"][0]["meta"]) == (f"图{number}", {"parity": number % 2})


def test_pages_follow_each_other(client, searcher):
    pages = [found(client, text="猫", k=5, offset=offset) for offset in (0, 5, 10, 12)]
    same([hit for page in pages for hit in page["hits"]], searcher.search(parse_query("猫"), IMAGES))
    assert [page["more"] for page in pages] == [True, True, False, False]


def test_an_image_finds_itself(client, searcher, model):
    hits = found(client, image=image_uri(3), k=4)["hits"]
    same(hits, searcher.search(model.encode_image([drawn(3)], orientation="apply")[0], 4))
    assert hits[0]["id"] == 4 and hits[0]["score"] == pytest.approx(1, abs=1e-3)


def test_an_entry_finds_similar_ones(client, searcher):
    same(found(client, id=11, k=3, offset=1)["hits"], searcher.similar(11, 3, 1))
    assert found(client, id=11)["hits"][0]["id"] == 12  # the copy
    assert error_of(client.post("/search", json={"id": 99}), 404)["message"] == "the index has no entry 99"


def test_a_vector_is_a_query(client, searcher):
    vector = list(range(-32, 32))
    same(found(client, vector=vector, k=12)["hits"], searcher.search(vector, 12))


def test_weighted_terms(client, searcher, model):
    terms = [{"text": "a + b"}, {"image": image_uri(2), "weight": 2}, {"id": 5, "weight": -0.5}]
    parts = model.encode_text(["a + b"]), model.encode_image([drawn(2)]), searcher.index.vector(4)[None]
    vector = np.concatenate(parts).astype(np.float64).T @ [1, 2, -0.5]
    same(found(client, query=terms, k=12)["hits"], searcher.search(vector, 12))


def test_filters(client):
    def ids(**filter):
        return sorted(hit["id"] for hit in found(client, text="猫", filter=filter)["hits"])

    everything = list(range(1, IMAGES + 1))
    assert ids() == ids(kind="image") == ids(meta={}) == everything and ids(kind="text") == []
    assert ids(meta={"parity": 1}) == ids(meta={"parity": "1"}) == everything[1::2]
    assert ids(after="2024-05-04T12:00", before="2024-05-07") in ([5, 6, 7], [4, 5, 6])  # by the zone
    assert ids(folder="/nowhere") == [] == ids(meta={"parity": True})
    folder = found(client, text="猫", k=1)["hits"][0]["path"].rpartition("/")[0]
    assert ids(folder=folder) == everything
    similar = found(client, id=11, filter={"meta": {"parity": 0}})["hits"]
    assert sorted(hit["id"] for hit in similar) == [1, 3, 5, 7, 9]


def test_the_values_for_filters(client, place):
    values = client.get("/filters").json()
    assert values["folders"] == [str(place / "images")] and values["meta"] == {"parity": ["0", "1"]}
    assert values["dates"][0] < values["dates"][1] and values["dates"][1].startswith("2024-05-1")


def test_near_duplicates(client, searcher):
    answer = client.get("/duplicates", params={"threshold": 0.9999, "k": 1}).json()
    (wanted,) = searcher.near_duplicates(0.9999)
    same(answer["groups"][0], wanted)
    assert [hit["id"] for hit in answer["groups"][0]] == [11, 12] and not answer["more"]
    pages = [client.get(f"/duplicates?threshold=0.5&k=1&offset={offset}").json() for offset in (0, 1)]
    groups = searcher.near_duplicates(0.5)
    assert pages[0]["more"] == (len(groups) > 1)
    same(pages[0]["groups"][0], groups[0])
    assert len(pages[1]["groups"]) == min(len(groups) - 1, 1)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "give exactly one of text, image, id, vector, query; the request has none"),
        ({"text": "a", "id": 1}, 422, "give exactly one of"),
        ({"text": "  "}, 422, "text: the query is empty"),
        ({"text": "猫 +"}, 422, "text: query: nothing after '+'"),
        ({"text": "猫 - 猫"}, 422, "text: query: its terms cancel out"),
        ({"image": uri(b"a")}, 422, "image: it cannot be read as an image"),
        ({"vector": [1.0] * 63}, 422, "vector: the list has 63 items, but must have 64"),
        ({"vector": [0] * 64}, 422, "vector: all its numbers are 0"),
        ({"query": [{"weight": 1}]}, 422, "query[0]: give exactly one of text, image, id"),
        ({"query": [{"text": "a"}, {"image": uri(b"a")}]}, 422, "query[1]: it cannot be read"),
        ({"query": [{"text": "a", "weight": 0}]}, 422, "query: all weights are 0"),
        ({"query": [{"id": 99}]}, 404, "the index has no entry 99"),
        ({"text": "a", "k": 1001}, 422, "k: 1001 is not a whole number from 1 to 1000"),
        (
            {"text": "a", "offset": 9990, "k": 20},
            413,
            "offset + k: 10010 results, but the limit is 10000 (--max-results)",
        ),
        ({"text": "a", "filter": {"after": "soon"}}, 422, "filter: 'soon' is not a date"),
        ({"text": "a", "filter": {"after": "0001-01-01"}}, 422, "filter: the date"),
        ({"text": "a", "filter": {"since": "2024"}}, 422, "filter.since is not a field"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(client, body, status, message):
    assert error_of(client.post("/search", json=body), status)["message"].startswith(message)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("threshold=0.4", 422, "threshold: 0.4 is not a number from 0.5 to 1"),
        ("threshold=nan", 422, "threshold: nan is not a number"),
        ("threshold=x", 422, "threshold: 'x' is not a number"),
        ("k=1_0", 422, "k: '1_0' is not a whole number"),
        ("k=1&k=2", 422, "k: it is given more than once"),
    ],
)
def test_wrong_parameters(client, query, status, message):
    assert error_of(client.get(f"/duplicates?{query}"), status)["message"].startswith(message)
