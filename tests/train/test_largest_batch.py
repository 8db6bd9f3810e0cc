"""The search for the largest batch, with made-up compilers that count how often they are asked."""

import pytest

from jclip.train.planning.largest_batch import largest_batch

MEMORY = 1000


class Needs:
    """Memory of a batch; counts the batches that were asked for."""

    def __init__(self, of):
        self.of, self.asked = of, []

    def __call__(self, batch):
        assert batch > 0 and batch not in self.asked
        self.asked.append(batch)
        return self.of(batch)


def found(of, batch, step=8):
    needs = Needs(of)
    best = largest_batch(needs, batch, of(batch), step, MEMORY)
    sizes = {each: of(each) for each in (batch, *needs.asked)}
    assert best.fits == max((each for each, size in sizes.items() if size <= MEMORY), default=None)
    assert best.too_large == min((each for each, size in sizes.items() if size > MEMORY), default=None)
    return best.fits, needs.asked


@pytest.mark.parametrize(
    ("batch", "asked"),
    [
        (64, [128, 400]),  # fits: the double, then where the line meets the limit: 200 + 2 * 400 = 1000
        (800, [400]),  # half of what does not fit is exactly the limit
        (1600, [800, 400]),
        (3200, [1600, 400]),
        (40, [80, 400]),
    ],
)
def test_a_line_takes_at_most_two_compilations(batch, asked):
    assert found(lambda batch: 200 + 2 * batch, batch) == (400, asked)


def test_the_result_was_compiled_and_fits():
    def bent(batch):  # more temporaries from 300 pairs on
        return 100 + batch + max(batch - 300, 0) * 5

    best, tried = found(bent, 96)
    assert best in tried and bent(best) <= MEMORY and best >= 0.95 * 400 and len(tried) <= 5


def test_a_compiler_that_saves_near_the_limit():
    """TPUs' compiler recomputes more when the memory ends: needs grow more slowly, and then do not fit."""

    def saving(batch):
        return min(50 + 4 * batch, 900 + batch // 4)

    best, tried = found(saving, 64)
    assert saving(best) <= MEMORY < saving(best + 8 * 8) and len(tried) <= 5


def test_nothing_fits():
    best, tried = found(lambda batch: 2000 + batch, 64)
    assert best is None and min(tried) == 8 and len(tried) <= 5


def test_memory_that_does_not_grow():
    best, tried = found(lambda batch: 500, 64)
    assert best == 128 and tried == [128]


def test_batches_are_multiples_of_the_step():
    best, tried = found(lambda batch: 3 * batch, 48, step=48)
    assert best == 288 and all(batch % 48 == 0 for batch in tried)


@pytest.mark.parametrize("batch", [64, 320, 640, 1600])
@pytest.mark.parametrize("exaggerated", [1.0, 1.1, 1.18])
def test_a_compiler_that_refuses_before_the_limit(batch, exaggerated):
    """As TPUs' compiler does, whose refusal also names more than is needed: it takes up to 888, which need 938."""

    def refusing(batch):
        return 50 + batch if batch <= 888 else max(int((50 + batch) * exaggerated), MEMORY + 1)

    best, tried = found(refusing, batch)
    assert 0.9 * 888 <= best <= 888 and len(tried) <= 5


def test_a_compiler_that_fails_ends_the_search():
    answers = iter([328, None])
    assert largest_batch(lambda batch: next(answers), 64, 200, 8, MEMORY) == (128, None)
    assert largest_batch(lambda batch: None, 64, 2000, 8, MEMORY) == (None, 64)
