"""`jclip search` as a user sees it: forms of output, options, hostile names and short errors."""

import json
import os
import re
import shutil

import pytest

from jclip.cli import main
from jclip.loading import load
from jclip.search.index import Index
from jclip.search.queries import parse_query
from jclip.search.searching import Searcher
from tests.cli.small_bundle import write_bundle
from tests.cli.small_index import NAMES, write_all


@pytest.fixture(scope="session")
def made(made_once):
    return made_once("small index", write_all)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")


def path_of(made, name):
    return os.fsencode(made / "pictures") + b"/" + NAMES[name]


def search(made, capsys, *words):
    assert main(["search", str(made / "index"), *map(str, words)]) == 0
    return capsys.readouterr().out


def fails(capsys, *words, code=1):
    assert main(["search", *map(str, words)]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert captured.err.startswith("jclip search: ") and captured.err.count("\n") == 1
    return captured.err


def ids(made, capsys, *words):
    found = json.loads(search(made, capsys, *words, "--json"))
    return [hit["id"] for hit in found["hits"]]


@pytest.fixture(scope="session")
def expected(made):
    """Ids and scores of the query 红色 - 猫, from Python."""
    with Index.open(made / "index") as index:
        hits = Searcher(index, load(made / "bundle")).search(parse_query("红色 - 猫"), k=10)
    return [(hit.entry.id, hit.score) for hit in hits]


def test_json(made, capsys, expected):
    found = json.loads(search(made, capsys, "红色", "-", "猫", "--json"))
    assert found["query"] == "红色 - 猫" and found["more"] is False
    assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [
        (id, pytest.approx(score, abs=1e-6)) for id, score in expected
    ]
    red = next(hit for hit in found["hits"] if hit["id"] == 1)
    assert red.pop("score") and red == {
        "id": 1, "path": str(made / "pictures/a/red.png"), "kind": "image", "width": 40, "height": 20, "text": "red",
        "meta": {"n": 1},
    }  # fmt: skip


def test_pages(made, capsys, expected):
    everything = [id for id, _ in expected]
    assert ids(made, capsys, "红色 - 猫") == everything
    assert ids(made, capsys, "红色 - 猫", "--k", 4) == everything[:4]
    assert ids(made, capsys, "红色 - 猫", "--k", 4, "--offset", 4) == everything[4:]
    first = json.loads(search(made, capsys, "红色 - 猫", "--k", 4, "--json"))
    assert first["more"] is True


def test_an_image_finds_itself_and_its_copy(made, capsys):
    assert ids(made, capsys, made / "pictures/a/red.png", "--k", 2) == [1, 9]
    assert ids(made, capsys, os.fsdecode(path_of(made, "green")), "--k", 1) == [2]
    assert ids(made, capsys, os.fsdecode(path_of(made, "blue")), "--k", 1) == [3]  # " - " in its name
    both = ids(made, capsys, made / "pictures/a/red.png", "-", os.fsdecode(path_of(made, "blue")))
    assert both[:2] == [1, 9] and both[-1] == 3


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--folder", "pictures/a"], {1, 2, 9}),
        (["--folder", "pictures/a/deep/"], {2}),
        (["--folder", "nowhere"], set()),
        (["--after", "1970-01-04T00:00+00:00", "--before", "1970-01-05T00:00:01+00:00"], {3, 4}),
        (["--kind", "image"], {1, 2, 3, 4, 5, 9}),
        (["--kind", "text"], set()),
        (["--where", "n>=3", "--where", "n!=9"], {3, 4, 5}),
        (["--where", "n=1", "--folder", "pictures/b"], set()),
    ],
)
def test_filters(made, capsys, monkeypatch, options, found):
    monkeypatch.chdir(made)
    assert set(ids(made, capsys, "红", *options)) == found
    assert ids(made, capsys, "红", "--k", 1, *options) == ids(made, capsys, "红", *options)[:1]


def test_the_day_of_before_is_included(made, capsys, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()
    try:
        assert set(ids(made, capsys, "红", "--after", "1970-01-03", "--before", "1970-01-04")) == {2, 3}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_table_escapes_names(made, capsys):
    assert main(["search", str(made / "index"), "红"]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out and r"\x1b[2J.png" in out and r"green \udcff\n.png" in out and "蓝 - <b>.png" in out
    assert out.count(".png") == 6 and "there are more" not in err
    assert main(["search", str(made / "index"), "红", "--k", "2", "--offset", "1"]) == 0
    out, err = capsys.readouterr()
    assert re.findall(r"│ +([0-9]+) │", out) == ["2", "3"] and "there are more: --offset 3" in err


def test_nothing_found(made, capsys):
    assert main(["search", str(made / "index"), "红", "--kind", "text"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "nothing found" in err


def test_paths_as_they_are(made, capfdbinary):
    def run(*words):
        assert main(["search", str(made / "index"), *words]) == 0
        return capfdbinary.readouterr().out

    assert run(os.fsdecode(path_of(made, "green")), "-0", "--k", "1") == path_of(made, "green") + b"\0"
    pair = [os.fsencode(made / "pictures/a" / name) for name in ("red.png", "copy.png")]
    assert run("--duplicates", "--threshold", "1", "--paths") == b"%b\n%b\n\n" % tuple(pair)
    assert run("--duplicates", "--threshold", "1", "--null") == b"%b\0%b\0\0" % tuple(pair)


def test_duplicates(made, capsys):
    found = json.loads(search(made, capsys, "--duplicates", "--threshold", "1", "--json"))
    assert [[hit["id"] for hit in group] for group in found["groups"]] == [[1, 9]] and found["more"] is False
    everything = json.loads(search(made, capsys, "--duplicates", "--threshold", "0.001", "--json"))
    assert sum(map(len, everything["groups"])) <= 6
    assert "group 1, 2 entries" in search(made, capsys, "--duplicates", "--threshold", "1")
    assert json.loads(search(made, capsys, "--duplicates", "--folder", made / "nowhere", "--json"))["groups"] == []


def test_a_page(made, capsys, tmp_path):
    assert search(made, capsys, "红", "--html", "out.html") == ""
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 6 and "蓝 - &lt;b&gt;.png" in page and "<title>红</title>" in page
    assert "out.html exists already" in fails(capsys, made / "index", "红", "--html", "out.html")
    search(made, capsys, "--duplicates", "--threshold", "1", "--html", "two.html")
    assert "group 1, 2 entries" in (tmp_path / "two.html").read_text(encoding="utf-8")


def test_images_on_the_terminal(made, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-kitty")
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b_G" not in search(made, capsys, "红", "--k", 2)  # not a terminal
    shown = search(made, capsys, "红", "--k", 2, "--show", "kitty")
    assert shown.count("\x1b_Ga=T") == 2 and shown.count(".png") == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert search(made, capsys, "红", "--k", 2).count("\x1b_Ga=T") == 2
    assert "\x1b_G" not in search(made, capsys, "红", "--k", 2, "--show", "no")
    listed = search(made, capsys, "红", "--paths")
    assert r"\x1b[2J.png" in listed and len(listed.splitlines()) == 6  # escaped on a terminal


def test_help_explains_the_query(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["search", "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "狗 + 雪 - 人" in shown and "with spaces on both sides" in shown and "C++" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the query is empty"),
        (["狗", "-", "狗"], "its terms cancel out"),
        (["@nowhere.jpg"], "image nowhere.jpg does not exist"),
        (["狗", "+"], "nothing after '+'"),
        (["狗", "--duplicates"], "--duplicates takes no query"),
        (["--duplicates", "--ann"], "--duplicates is always exact"),
        (["--duplicates", "--threshold", "2"], "threshold is 2"),
        (["狗", "--json", "--paths"], "--paths and --json are two forms of output"),
        (["狗", "--html", "a.html", "-0"], "--null and --html are two forms"),
        (["狗", "--html", "/proc/x/a.html"], "cannot be made"),
        (["狗", "--k", "0"], "k is 0"),
        (["狗", "--offset", "-1"], "offset is -1"),
        (["狗", "--after", "yesterday"], "'yesterday' is not a date"),
        (["狗", "--where", "n"], "'n' is not a comparison"),
        (["狗", "--ann"], "has no approximate index: run jclip index"),
        (["狗", "--model", "nowhere"], "nowhere"),
    ],
)
def test_errors(made, capsys, words, told):
    assert told in fails(capsys, made / "index", *words)


def test_wrong_indexes_and_models(made, capsys, tmp_path):
    assert "nowhere is not an index: there is no such folder" in fails(capsys, "nowhere", "狗")
    assert "is not an index: it has no index.json" in fails(capsys, made, "狗")
    write_bundle(tmp_path / "other", seed=1)
    assert "was made with another model" in fails(capsys, made / "index", "狗", "--model", "other")
    moved = shutil.copytree(made / "index", tmp_path / "index")
    facts = json.loads((moved / "index.json").read_bytes())
    facts["model"]["source"] = "/nowhere/bundle"
    (moved / "index.json").write_text(json.dumps(facts))
    told = fails(capsys, moved, "狗")
    assert "/nowhere/bundle" in told and "give its new place with --model" in told
    assert ids(moved.parent, capsys, "红", "--k", 1, "--model", made / "bundle")


def test_an_image_that_cannot_be_read(made, capsys, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert "broken.png cannot be read as an image" in fails(capsys, made / "index", "broken.png")
