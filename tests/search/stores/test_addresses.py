import pytest

from jclip.errors import JclipError
from jclip.search.stores.addresses import Address, is_address, parse_address
from jclip.search.stores.opening import open_store


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("pgvector", Address("pgvector", ""), "pgvector, table jclip"),
        ("pgvector:?table=a", Address("pgvector", "", "a"), "pgvector, table a"),
        ("milvus:a b.db", Address("milvus", "a b.db"), "milvus:a b.db, table jclip"),
        (
            "pgvector://h/d?table=a%20b&x=1&source=me",
            Address("pgvector", "//h/d?x=1", "a b", "me"),
            "pgvector://h/d, table a b",
        ),
        (
            "pgvector://u:secret@h/d?password=secret",
            Address("pgvector", "//u:secret@h/d?password=secret"),
            "pgvector://u@h/d, table jclip",
        ),
        ("milvus://u:secret@h", Address("milvus", "//u:secret@h"), "milvus://u@h, table jclip"),
        ("x://u:se/cr?et@secret@h/d", Address("x", "//u:se/cr?et@secret@h/d"), "x://u@h/d, table jclip"),
    ],
)
def test_addresses_by_hand(text, address, shown):
    assert parse_address(text) == address
    assert str(address) == shown and "secret" not in shown


@pytest.mark.parametrize(
    "text", ["", ":x", "PG:x", "//host", "pg vector:x", "pgvector:?table=", "pgvector:?source=&table=a"]
)
def test_wrong_addresses_are_refused(text):
    with pytest.raises(JclipError, match=r"must begin with its kind|has an empty (table|source)"):
        parse_address(text)


def test_a_folder_is_not_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [is_address(text) for text in ("photos", "./a:b", "/a", "milvus:a.db", "pgvector://h/d", "pgvector:")] == [
        False, False, False, True, True, True,
    ]  # fmt: skip
    (tmp_path / "a:b").mkdir()
    assert not is_address("a:b") and is_address("a:c")


def test_unknown_kinds_are_refused():
    with pytest.raises(JclipError, match="pgvectro is not a known kind of database: did you mean pgvector"):
        open_store(Address("pgvectro", ""))


def test_a_kind_from_outside(monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from jclip.search.stores.opening import register_store\n"
        "register_store('toy', lambda address: ('a toy', address))\n"
    )
    monkeypatch.setenv("JCLIP_KINDS", str(tmp_path / "mine.py"))
    address = parse_address("toy://shelf")
    assert open_store(address) == ("a toy", address)
