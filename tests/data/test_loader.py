"""Order and batches: random access, shares of processes, mixtures, buckets, and bad input."""

import itertools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from jclip.data.batches.opened import open_sources
from jclip.data.batches.order import Order
from jclip.data.sources.folders import PairFolder, ParallelFolder
from jclip.data.sources.records import Pair, Translation
from jclip.data.sources.synthetic import SyntheticPairs, SyntheticParallel, caption, translation, write_tokenizer
from jclip.data.sources.writing import write_parallel
from jclip.errors import JclipError
from jclip.images.on_host import Decoder, HostAugmentation
from jclip.images.preprocess import Preprocessing
from tests.data.loading import make_batches


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_tokenizer("wordpiece", tmp_path_factory.mktemp("wordpiece"))


def batches(words, *sources, **options):
    return make_batches(*(sources or (SyntheticPairs(count=20, size=8),)), tokenizer=words, **options)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype


def test_every_record_comes_once_an_epoch_and_epochs_differ():
    order = Order([7], [1.0], seed=0, stage=0)
    epochs = [[order[7 * epoch + i] for i in range(7)] for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch) == [(0, i) for i in range(7)]
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": 1}])
def test_order_depends_on_seed_and_stage_and_nothing_else(change):
    one, again = Order([50], [1.0], seed=0, stage=0), Order([50], [1.0], seed=0, stage=0)
    other = Order([50], [1.0], **{"seed": 0, "stage": 0, **change})
    assert [one[i] for i in reversed(range(50))][::-1] == [again[i] for i in range(50)]
    assert [one[i] for i in range(50)] != [other[i] for i in range(50)]
    assert one.random(7).random() == again.random(7).random() != other.random(7).random()


def test_mixture_by_weight():
    order = Order([10, 1000], [3.0, 1.0], seed=0, stage=0)
    assert Counter(order[i][0] for i in range(400)) == {0: 300, 1: 100}
    assert len({order[i] for i in range(400)}) == 10 + 100


def test_a_batch_by_hand(words):
    batch = batches(words)[0]
    assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
        "image": ((8, 8, 8, 3), "uint8"),
        "text": ((8, 12), "int32"),
        "image_id": ((8,), "int32"),
        "text_id": ((8,), "int32"),
        "example": ((8,), "int32"),
    }
    made = SyntheticPairs(count=20, size=8).open()
    for row in range(8):
        number = int(batch["text_id"][row])
        np.testing.assert_array_equal(batch["image"][row], made[number].pictures[0])
        np.testing.assert_array_equal(batch["text"][row], words([caption(number)], 12)[0])
    np.testing.assert_array_equal(batch["example"], np.arange(8))


def test_any_step_can_be_repeated(words):
    some = batches(words)
    expected = [some[step] for step in range(6)]
    for step in (5, 0, 3):
        same(batches(words)[step], expected[step])
    for step, batch in zip(range(2, 6), some.iterate(2), strict=False):
        same(batch, expected[step])
    assert some.examples_per_epoch == 20


def test_pictures_are_augmented_by_example_and_not_by_batch(words):
    how, some = Preprocessing(size=8), HostAugmentation((0.5, 1.0), flip=0.5, auto_augment="original")
    given = {"augmentation": some, "preprocessing": how, "seed": 4, "stage": 2}
    whole, plain = batches(words, **given)[3], batches(words, **{**given, "augmentation": HostAugmentation()})[3]
    decode, made = Decoder(how, some, seed=4, stage=2), SyntheticPairs(count=20, size=8).open()
    for image, number, example in zip(whole["image"], whole["text_id"], whole["example"], strict=True):
        np.testing.assert_array_equal(image, decode(made[number].pictures[0], int(example)))
    assert (whole.pop("image") != plain.pop("image")).any((1, 2, 3)).sum() >= 6
    same(whole, plain)
    # The same images for another batch size, other processes, and another order of steps.
    smaller = batches(words, batch_size=4, rows=(1, 2), **given)
    expected = batches(words, **given)[3]["image"]
    np.testing.assert_array_equal(smaller[7]["image"], expected[5:7])
    np.testing.assert_array_equal(smaller[6]["image"], expected[1:3])


@pytest.mark.parametrize("buckets", [(), (6, 9)])
def test_processes_share_a_batch_however_many_they_are(words, buckets):
    whole = batches(words, buckets=buckets)[3]
    for count in (2, 4):
        shares = np.split(np.arange(len(whole["example"])), count)
        parts = [batches(words, buckets=buckets, rows=share)[3] for share in shares]
        same(whole, {key: np.concatenate([part[key] for part in parts]) for key in whole})
    some = [2, 0, 3]
    same(batches(words, buckets=buckets, rows=some)[3], {key: value[some] for key, value in whole.items()})


def test_buckets_fit_the_longest_text(words):
    some = batches(words, buckets=(5, 7), batch_size=2)
    whole = batches(words, batch_size=2)
    lengths = Counter()
    for step in range(20):
        ids, full = some[step]["text"], whole[step]["text"]
        longest = int((full != 0).sum(1).max())
        assert ids.shape[1] == next(length for length in (5, 7, 12) if length >= longest)
        np.testing.assert_array_equal(ids, full[:, : ids.shape[1]])
        lengths[ids.shape[1]] += 1
    assert len(lengths) > 1


def test_parallel_text_half_of_it_english(words):
    some = batches(words, SyntheticParallel(count=64), batch_size=64, teacher_context_length=10)
    english = 0
    for step in range(10):
        batch = some[step]
        assert batch["student"].shape == (64, 12) and batch["teacher"].shape == (64, 10)
        for student, teacher in zip(batch["student"], batch["teacher"], strict=True):
            if (student[:10] == teacher).all():
                english += 1
            else:
                number = next(n for n in range(64) if (words([caption(n)], 10)[0] == teacher).all())
                np.testing.assert_array_equal(student, words([translation(number)], 12)[0])
    assert abs(english / 640 - 0.5) < 0.08


@dataclass(frozen=True)
class Several:
    """Five things with two images and three captions each."""

    weight: float = 1.0
    gives: ClassVar[type] = Pair

    def open(self, preprocessing=None):
        pictures = [np.full((8, 8, 3), n, np.uint8) for n in range(10)]
        return [Pair(pictures[n::5], [f"red {n}", f"blue {n}", f"green {n}"], (n, n + 5), n) for n in range(5)]


def test_examples_draw_pictures_and_captions(words):
    some = batches(words, Several(), batch_size=5)
    seen = set()
    for step in range(60):
        batch = some[step]
        assert sorted(batch["text_id"]) == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["image_id"])
        np.testing.assert_array_equal(batch["image_id"] % 5, batch["text_id"])
        seen |= {(int(i), tuple(t)) for i, t in zip(batch["image_id"], batch["text"].tolist(), strict=True)}
    assert len(seen) == 5 * 2 * 3


def test_ids_of_two_sources_do_not_collide(words):
    some = batches(words, SyntheticPairs(count=5, size=8), SyntheticPairs(count=5, size=8, seed=9), batch_size=10)
    batch = some[0]
    assert len(set(batch["image_id"].tolist())) == len(set(batch["text_id"].tolist())) == 10
    assert batch["text_id"].min() >= 0


def test_the_prefetching_thread_ends_with_its_reader(words):
    before = threading.active_count()
    iterator = batches(words).iterate()
    list(itertools.islice(iterator, 3))
    iterator.close()
    give_up = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < give_up:
        time.sleep(0.01)  # it may be in the middle of a batch
    assert threading.active_count() == before


def test_worker_processes_make_the_same_batches(words):
    """Workers report unreadable images, the main process counts them. Workers ignore Ctrl-C, which reaches them too."""
    given = {"batch_size": 8, "max_unreadable": 10, "buckets": (6, 9), "bucket_window": 2}
    alone, shared = batches(words, Holey(), **given), batches(words, Holey(), **given, workers=2)
    with closing(shared.iterate(1)) as iterator:
        for step, batch in zip(range(1, 12), iterator, strict=False):
            same(batch, alone[step])
            if step == 2:  # both are at work
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, signal.SIGINT)
    assert set(shared.unreadable) == set(alone.unreadable) and shared.unreadable
    strict = batches(words, Holey(), **{**given, "max_unreadable": 3}, workers=1)
    with closing(strict.iterate()) as iterator, pytest.raises(JclipError, match=r"raise stages\.0\.max_unreadable"):
        list(itertools.islice(iterator, 3))


@dataclass(frozen=True)
class Broken:
    """Four records, of which number 3 is not an image; with `only`, that record alone."""

    weight: float = 1.0
    gives: ClassVar[type] = Pair
    only: bool = False

    def open(self, preprocessing=None):
        good = np.zeros((8, 8, 3), np.uint8)
        numbers = [3] if self.only else range(4)
        return [Pair((b"no picture" if n == 3 else good,), ("red",), (n,), n) for n in numbers]


def test_an_unreadable_picture_is_named(words):
    some = batches(words, Broken(), batch_size=4)
    with pytest.raises(JclipError, match=r"Broken.*: the image of record 3 cannot be read as an image"):
        some[0]
    with pytest.raises(JclipError, match="record 3"):
        next(some.iterate())


def test_replacements_of_unreadable_images_depend_on_the_step_alone(words):
    """A third of the images is unreadable. Batches depend neither on earlier steps nor on the number of processes."""
    given = {"batch_size": 8, "max_unreadable": 10, "buckets": (6, 9)}
    source = Holey()
    whole = batches(words, source, **given)
    expected = [whole[step] for step in range(9)]  # three epochs
    assert sorted(line.split(" record ")[1].split()[0] for line in whole.unreadable) == sorted(
        map(str, range(0, 24, 3))
    )
    assert all(int(number) % 3 for batch in expected for number in batch["text_id"])
    for step in (7, 0, 4):
        same(batches(words, source, **given)[step], expected[step])
        parts = [batches(words, source, **given, rows=rows)[step] for rows in (range(4), range(4, 8))]
        same({key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, expected[step])
    for batch in expected:  # image and text still belong to one record
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["text_id"])
        np.testing.assert_array_equal(batch["image_id"], batch["text_id"])
    strict = batches(words, source, **{**given, "max_unreadable": 7})
    with pytest.raises(JclipError, match=r"cannot be read .*: repair or remove it, or raise stages\.0\.max_unreadable"):
        [strict[step] for step in range(3)]


def test_a_run_of_unreadable_images_is_an_error(words):
    with pytest.raises(JclipError, match="64 records in turn have unreadable images: repair the data"):
        batches(words, Broken(only=True), batch_size=1, max_unreadable=5)[0]


@dataclass(frozen=True)
class Holey:
    """24 records, of which every third has no image."""

    weight: float = 1.0
    gives: ClassVar[type] = Pair

    def open(self, preprocessing=None):
        pictures = [b"no picture" if n % 3 == 0 else np.full((8, 8, 3), n, np.uint8) for n in range(24)]
        return [Pair((picture,), (caption(n),), (n,), n) for n, picture in enumerate(pictures)]


def test_a_damaged_record_is_named_with_its_shard_and_replaced(words, tmp_path):
    """Record 2 of 6 is damaged; every process replaces it by the same record."""
    folder = tmp_path / "text"
    tales = [Translation(caption(n), translation(n), "zh") for n in range(6)]
    write_parallel(folder, tales)
    (shard,) = folder.glob("*.array_record*")
    rewrite(shard, 2, b"\xff\xff\xff no example")
    given = {"batch_size": 6}
    source = ParallelFolder(str(folder))
    with pytest.raises(
        JclipError, match=rf"text: record 2 \(index 2 of {re.escape(shard.name)}\) cannot be read \("
    ) as met:
        batches(words, source, **given)[0]
    assert "or raise stages.0.max_unreadable (now 0)" in str(met.value)
    some = batches(words, source, **given, max_unreadable=1)
    english = {tuple(words([tale.english], 12)[0]): n for n, tale in enumerate(tales)}
    for step in range(4):
        found = Counter(english[tuple(row)] for row in some[step]["teacher"].tolist())
        assert not found[2] and sum(found.values()) == 6 and set(found) <= {0, 1, 3, 4, 5}
        parts = [batches(words, source, **given, max_unreadable=1, rows=rows)[step] for rows in ((0, 1, 2), (3, 4, 5))]
        same({key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, some[step])
    assert len(some.unreadable) == 1 and f"(index 2 of {shard.name})" in some.unreadable[0]


def rewrite(shard, number, data):
    """Replaces the bytes of one record of an array_record file."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    reader = ArrayRecordReader(str(shard))
    records = reader.read_all()
    reader.close()
    records[number] = data
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def test_damaged_bytes_of_a_shard_are_named(tmp_path):
    folder = tmp_path / "text"
    write_parallel(folder, [Translation(caption(n), translation(n), "zh") for n in range(6)])
    (shard,) = folder.glob("*.array_record*")
    data = bytearray(shard.read_bytes())
    inside = next(at for at in range(40, len(data)) if data[at])
    data[inside : inside + 200] = bytes(200)
    shard.write_bytes(bytes(data))
    records = ParallelFolder(str(folder)).open()
    with pytest.raises(JclipError, match=rf"record \d \(index \d of {re.escape(shard.name)}\) cannot be read"):
        list(records)


@dataclass(frozen=True)
class Empty:
    weight: float = 1.0
    gives: ClassVar[type] = Pair

    def open(self, preprocessing=None):
        return []


def test_errors_say_what_to_do(words, tmp_path):
    with pytest.raises(JclipError, match="give the stage at least one source"):
        open_sources((), Preprocessing())
    with pytest.raises(JclipError, match="is empty: name another source or split"):
        batches(words, Empty())
    with pytest.raises(JclipError, match=r"weight is .*; set it above 0"):
        batches(words, SyntheticPairs(weight=0.0))
    with pytest.raises(JclipError, match="make it two stages"):
        batches(words, SyntheticPairs(), SyntheticParallel())
    with pytest.raises(JclipError, match="holds no data set"):
        batches(words, PairFolder(str(tmp_path)))
