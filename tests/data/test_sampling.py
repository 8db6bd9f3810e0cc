"""Languages by temperature, and all pairs or one caption: by hand."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from jclip.data.batches.opened import open_sources
from jclip.data.batches.order import Order
from jclip.data.batches.sampling import Unit, groups
from jclip.data.sources.folders import ParallelFolder
from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.synthetic import write_tokenizer
from jclip.data.sources.writing import write_languages, write_parallel
from jclip.errors import JclipError
from jclip.images.preprocess import Preprocessing
from tests.data.loading import make_batches


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_tokenizer("wordpiece", tmp_path_factory.mktemp("wordpiece"))


@dataclass(frozen=True)
class Given:
    """Source of given records."""

    records: tuple = field(repr=False)
    weight: float = 1.0

    @property
    def gives(self):
        return type(self.records[0])

    def open(self, preprocessing=None):
        return list(self.records)


def pair(number, captions, languages=(), text_ids=(), pictures=1):
    grey = [np.full((8, 8, 3), number, np.uint8)] * pictures
    return Pair(grey, captions, tuple(range(10 * number, 10 * number + pictures)), number, text_ids, languages)


def units(source, **options):
    given = {"captions": "one", "temperature": None, **options}
    return groups(open_sources([source], Preprocessing(size=8)), **given)


def every(group):
    return [group.unit(place) for place in range(group.count)]


def test_by_default_a_record_is_a_unit():
    (group,) = units(Given((pair(0, ["red", "blue"]), pair(1, ["green"]))))
    assert every(group) == [Unit(0, 0), Unit(0, 1)] and group.weight == 1.0


def test_all_pairs():
    source = Given((pair(0, ["red", "blue"], pictures=2), pair(1, ["green"])), weight=3.0)
    (group,) = units(source, captions="all")
    assert every(group) == [
        Unit(0, 0, 0, 0),
        Unit(0, 0, 0, 1),
        Unit(0, 0, 1, 0),
        Unit(0, 0, 1, 1),
        Unit(0, 1, 0, 0),
    ]
    assert group.weight == 3.0


TALES = tuple(Translation(f"red {n}", f"x {n}", language) for n, language in enumerate(["zh"] * 16 + ["ko"] * 4))


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.8), (2.0, 2 / 3), (1e6, 0.5)])
def test_temperature_by_hand(temperature, share):
    """16 and 4 records: 4:1, then 4^(1/2):1, then 1:1."""
    ko, zh = units(Given(TALES), temperature=temperature)
    assert (ko.language, ko.count, zh.language, zh.count) == ("ko", 4, "zh", 16)
    assert zh.weight / (zh.weight + ko.weight) == pytest.approx(share, rel=1e-5)
    order = Order([ko.count, zh.count], [ko.weight, zh.weight], 0, 0)
    drawn = Counter(order[example][0] for example in range(300))
    assert drawn[1] == pytest.approx(300 * share, abs=2)


def test_languages_count_over_all_sources():
    """One folder for each language and one for both are equivalent. A weight multiplies a source's records."""
    zh, ko = Given(TALES[:16]), Given(TALES[16:])
    apart = groups(open_sources([zh, ko], Preprocessing()), "one", 2.0)
    together = {group.language: group.weight for group in units(Given(TALES), temperature=2.0)}
    assert {group.language: group.weight for group in apart} == pytest.approx(together)
    twice = Given(TALES[16:], weight=4.0)
    found = groups(open_sources([zh, twice], Preprocessing()), "one", 2.0)
    assert found[0].weight == pytest.approx(found[1].weight)


def test_a_record_in_several_languages_is_a_unit_in_each(words):
    records = (pair(0, ["red", "blue", "green"], ("en", "zh", "en"), (5, 6, 7)), pair(1, ["white"], ("en",), (8,)))
    en, zh = units(Given(records), temperature=1.0)
    assert every(en) == [Unit(0, 0, language="en"), Unit(0, 1, language="en")]
    assert every(zh) == [Unit(0, 0, language="zh")]
    some = batches(words, Given(records), language_temperature=1.0, batch_size=3)
    seen = Counter()
    for step in range(40):
        seen.update(some[step]["text_id"].tolist())
    assert seen[6] == seen[8] == 40 and seen[5] + seen[7] == 40 and seen[5] and seen[7]


def batches(words, *sources, **options):
    return make_batches(*sources, tokenizer=words, **options)


def test_a_caption_brings_its_own_text_id(words):
    captions = ["red", "blue", "green"]
    some = batches(words, Given((pair(3, captions, text_ids=(30, 31, 32)),)), batch_size=1)
    ids = {tuple(words([text], 12)[0]): number for text, number in zip(captions, (30, 31, 32), strict=True)}
    seen = set()
    for step in range(30):
        batch = some[step]
        assert batch["text_id"][0] == ids[tuple(batch["text"][0])]
        seen.add(int(batch["text_id"][0]))
    assert seen == {30, 31, 32}


def test_an_epoch_of_all_pairs_has_each_once(words):
    source = Given((pair(0, ["red", "blue"], text_ids=(1, 2), pictures=2), pair(1, ["green"], text_ids=(3,))))
    some = batches(words, source, captions="all", batch_size=5)
    assert some.examples_per_epoch == 5
    for step in range(3):
        batch = some[step]
        found = sorted(zip(batch["image_id"].tolist(), batch["text_id"].tolist(), strict=True))
        assert found == [(0, 1), (0, 2), (1, 1), (1, 2), (10, 3)]


class Damaged(list):
    """Records, of which the last cannot be read."""

    def __getitem__(self, number):
        if number == len(self) - 1:
            raise JclipError(f"record {number} cannot be read")
        return super().__getitem__(number)


@pytest.mark.parametrize("captions", ["one", "all"])
def test_unreadable_records_are_not_a_language_of_their_own(words, captions, monkeypatch):
    """They join a known language, whose records can replace them. As a language they would be drawn too often."""
    known = [pair(n, ["red"], ("zh" if n % 5 else "ko",), (n,)) for n in range(10)]
    monkeypatch.setattr(Given, "open", lambda self, preprocessing=None: Damaged(self.records))
    source = Given((*known, pair(10, ["red"])))
    ko, zh = units(source, captions=captions, temperature=1e6)
    assert (ko.language, ko.count, zh.language, zh.count) == ("ko", 2, "zh", 9)
    assert zh.unit(8) == Unit(0, 10, language="zh") and zh.unit(7).record == 9
    some = batches(words, source, captions=captions, language_temperature=1e6, batch_size=11, max_unreadable=1)
    drawn = Counter(number % 5 == 0 for step in range(20) for number in some[step]["text_id"].tolist())
    assert drawn[True] == pytest.approx(110, abs=20) and some.unreadable == ["record 10 cannot be read"]


def test_languages_of_a_folder_are_not_looked_for_in_its_records(tmp_path, monkeypatch):
    write_parallel(tmp_path / "text", TALES)
    write_languages(tmp_path / "text", "train", np.array([tale.language for tale in TALES]))
    source = ParallelFolder(str(tmp_path / "text"))
    opened = open_sources([source], Preprocessing())
    records = opened.records[0]
    with monkeypatch.context() as none:
        none.setattr(type(records), "__getitem__", lambda self, index: pytest.fail("read"))
        found = groups(opened, "one", 2.0)
    assert [(group.language, group.count) for group in found] == [("ko", 4), ("zh", 16)]
    assert [records[unit.record].language for unit in every(found[0])] == ["ko"] * 4
    write_languages(tmp_path / "text", "train", np.array(["zh"]))
    with pytest.raises(
        JclipError, match="has the languages of 1 records of split 'train', but the split has 20: import it"
    ):
        groups(opened, "one", 2.0)


def test_a_temperature_needs_languages():
    with pytest.raises(JclipError, match="import the data with its languages, or omit it"):
        units(Given((pair(0, ["red"]),)), temperature=2.0)
