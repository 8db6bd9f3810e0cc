"""Length buckets: the same examples, sorted within windows; a function of the step for any number of processes."""

import itertools
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from jclip.data.batches.buckets import BucketedSteps
from jclip.data.sources.records import Translation
from jclip.data.sources.synthetic import write_tokenizer
from tests.data.loading import make_batches
from tests.data.test_sampling import Given, pair


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return write_tokenizer("wordpiece", tmp_path_factory.mktemp("wordpiece"))


def by_rest(examples):
    return np.array(examples) % 3


def test_a_window_by_hand():
    """Two steps of three: examples 0 to 5, with buckets 0 1 2 0 1 2."""
    plain, sorted_ = BucketedSteps(3, 1, (0, 0), by_rest), BucketedSteps(3, 2, (0, 0), by_rest)
    assert plain[1] == [3, 4, 5]
    assert sorted([sorted_[0], sorted_[1]]) == [[0, 3, 1], [4, 2, 5]]


def test_each_window_has_its_examples_in_its_own_order():
    some = BucketedSteps(4, 8, (3, 1), by_rest)
    orders = set()
    for window in range(6):
        batches = [some[8 * window + place] for place in range(8)]
        assert sorted(itertools.chain(*batches)) == list(range(32 * window, 32 * window + 32))
        orders.add(tuple(np.argsort([batch[0] % 3 for batch in batches], kind="stable").tolist()))
    assert len(orders) > 1
    again, other = BucketedSteps(4, 8, (3, 1), by_rest), BucketedSteps(4, 8, (3, 2), by_rest)
    assert [again[step] for step in (40, 3, 17)] == [some[step] for step in (40, 3, 17)]
    assert [other[step] for step in range(8)] != [some[step] for step in range(8)]


TALES = tuple(Translation("red", " ".join(["red"] * (1 + number * number % 9)), "zh") for number in range(64))


def batches(words, **options):
    given = {"batch_size": 4, "teacher_context_length": 6, "buckets": (4, 7), **options}
    return make_batches(Given(TALES), tokenizer=words, **given)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


def test_most_batches_are_short_and_shapes_are_few(words, monkeypatch):
    monkeypatch.setattr(Given, "english_share", 0.0, raising=False)
    plain, windowed = batches(words), batches(words, bucket_window=16)
    lengths = [Counter(some[step]["student"].shape[1] for step in range(16)) for some in (plain, windowed)]
    assert set(lengths[1]) == {4, 7, 12}
    padded = [sum(length * count for length, count in each.items()) for each in lengths]
    assert padded[1] < 0.8 * padded[0]
    examples = np.concatenate([windowed[step]["example"] for step in range(16)])
    assert sorted(examples.tolist()) == list(range(64))


def test_processes_resumption_and_workers_do_not_matter(words, monkeypatch):
    monkeypatch.setattr(Given, "english_share", 0.5, raising=False)
    whole = batches(words, bucket_window=8)
    expected = [whole[step] for step in range(12)]
    for step in (11, 2):
        same(batches(words, bucket_window=8)[step], expected[step])
        shares = [batches(words, bucket_window=8, rows=rows)[step] for rows in ((0, 2), (1, 3))]
        joined = {key: np.concatenate([share[key] for share in shares])[[0, 2, 1, 3]] for key in expected[step]}
        same(joined, expected[step])
    for step, batch in zip(range(5, 12), batches(words, bucket_window=8).iterate(5), strict=False):
        same(batch, expected[step])


def test_all_options_together_depend_on_the_step_alone(words):
    """Mixture, languages, all pairs, buckets and windows, with an unreadable image; resumed, in parts, with workers."""
    texts = [" ".join(["red"] * (1 + number % 9)) for number in range(12)]
    several = [pair(n, texts[n : n + 2], ("en", "zh"), (2 * n, 2 * n + 1), pictures=2) for n in range(9)]
    several[4] = several[4]._replace(pictures=(b"none", several[4].pictures[1]))
    sources = (Given(tuple(several), weight=2.0), Given((pair(9, texts[:1], ("ko",), (30,)),)))
    given = {"captions": "all", "language_temperature": 2.0, "buckets": (4, 7), "bucket_window": 4, "batch_size": 8}

    def some(**options):
        return make_batches(*sources, tokenizer=words, **given, max_unreadable=1, **options)

    whole = some()
    assert whole.examples_per_epoch == 9 * 2 * 2 + 1
    expected = [whole[step] for step in range(10)]  # two epochs
    (line,) = whole.unreadable
    assert "the image of record 4" in line
    for step in (9, 3):
        same(some()[step], expected[step])
        shares = [some(rows=range(at, at + 2))[step] for at in range(0, 8, 2)]
        same({key: np.concatenate([share[key] for share in shares]) for key in expected[step]}, expected[step])
    for workers in (0, 1):
        with closing(some(workers=workers).iterate(5)) as resumed:
            for step, batch in zip(range(5, 10), resumed, strict=False):
                same(batch, expected[step])
    drawn = [batch[key] for batch in expected for key in ("image_id", "text_id")]
    images, meanings = (set(np.concatenate(drawn[which::2]).tolist()) for which in (0, 1))
    assert len(images) >= 18 and len(meanings) >= 18 and len({batch["text"].shape[1] for batch in expected}) > 1
