import itertools
import threading
from collections import deque
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from jclip.errors import JclipError
from jclip.serve.batching import BACKGROUND, IMAGE, TEXT, Batcher
from jclip.serve.speeds import Form, warm_up
from tests.serve.services import wait_until_warm


class Gated:
    """Model that encodes a text or an image as its first number or letter, and waits for a gate before each batch."""

    similarity_scale = 1.0

    def __init__(self, context_length=3):
        self.bundle = SimpleNamespace(
            preprocessing=SimpleNamespace(size=1),
            context_length=context_length,
            tokenizer=SimpleNamespace(encode=lambda texts, most: [[0] * min(most, 1 + len(text)) for text in texts]),
        )
        self.batches, self.gate, self.entered = [], threading.Semaphore(0), threading.Semaphore(0)

    def encode_text(self, sentences):
        return self._encoded("".join(text[0] for text in sentences))

    def encode_image(self, pictures):
        return self._encoded("".join(chr(pixel) for pixel in pictures[:, 0, 0, 0]))

    def _encoded(self, letters):
        self.entered.release()
        self.gate.acquire()
        self.batches.append(letters)
        if "!" in letters:
            raise JclipError("not finite")
        return np.array([[ord(letter)] for letter in letters], np.float32)


def seconds():
    """Returns a clock on which a second goes by with each look at it."""
    return partial(next, itertools.count())


def image(letter):
    return np.full((1, 1, 3), ord(letter), np.uint8)


class Running:
    """Batcher over a gated model, whose first batch holds the model until `free`. Any batch seems to take a second."""

    def __init__(self, largest=4, context_length=3):
        self.model, self.seen = Gated(context_length), []
        self.batcher = Batcher(self.model, largest, lambda *each: self.seen.append(each[:2]), seconds())
        self.batcher.start()
        self.free()
        wait_until_warm(self.batcher)
        self.model.gate = threading.Semaphore(0)
        self.model.batches.clear()

    def hold(self):
        """Occupies the model with a batch "-"."""
        while self.model.entered.acquire(blocking=False):
            pass
        future = self.batcher.submit(TEXT, ["-"])
        self.model.entered.acquire()
        return future

    def free(self, batches=100):
        for _ in range(batches):
            self.model.gate.release()


@pytest.fixture
def running():
    found = Running()
    yield found
    found.free()
    found.batcher.stop()


def letters(future):
    return "".join(each if isinstance(each, str) else chr(int(each[0])) for each in future.result(10))


def test_every_shape_is_compiled_and_requests_are_served_between():
    model = Gated()
    batcher = Batcher(model, 4, lambda *each: None, seconds())
    text, picture = batcher.submit(TEXT, ["x"]), batcher.submit(IMAGE, [image("y")])
    batcher.start()
    for _ in range(3):
        assert not picture.done()
        model.gate.release()
    assert letters(picture) == "y" and not text.done()
    for _ in range(3):
        model.gate.release()
    assert letters(text) == "x"
    for _ in range(8):
        assert not batcher.warm
        model.gate.release()
    wait_until_warm(batcher)
    shapes = ["\0\0", "\0\0", "aa", "aa", "\0\0\0\0", "\0\0\0\0", "aaaa", "aaaa"]
    assert model.batches == ["\0", "\0", "y", "a", "a", "x", *shapes]
    batcher.stop()


def test_a_batch_takes_what_waits_up_to_the_largest(running):
    first = running.hold()
    futures = [running.batcher.submit(TEXT, [letter]) for letter in "abcdefg"]
    assert running.batcher.depth(TEXT) == 7 and running.batcher.depth(IMAGE) == 0
    running.free()
    assert [letters(future) for future in (first, *futures)] == list("-abcdefg")
    assert running.model.batches == ["-", "abcd", "efg"]
    running.batcher.stop()
    assert running.seen == [(TEXT, 1), (TEXT, 4), (TEXT, 3)] and running.batcher.depth(TEXT) == 0


def test_texts_of_about_the_same_length_share_a_batch():
    """17 and 40 tokens are padded to 32 and 40, the others to 16."""
    running = Running(context_length=40)
    running.hold()
    request = running.batcher.submit(TEXT, ["a", "b" * 16, "c" * 99, "d" * 15, "e" * 39, "f"])
    assert running.batcher.depth(TEXT) == 6
    running.free()
    assert letters(request) == "abcdef" and running.model.batches == ["-", "adf", "b", "ce"]
    running.batcher.stop()


def test_a_batch_is_not_larger_than_is_fast():
    """Batches of more than two images take longer than their parts."""
    running = Running(8)
    for size, took in ((1, 1.0), (2, 1.5), (4, 3.2), (8, 9.0)):
        running.batcher._speeds[Form(False)].note(size, took)
    running.hold()
    request = running.batcher.submit(IMAGE, [image(letter) for letter in "abcde"])
    running.free()
    assert letters(request) == "abcde" and running.model.batches == ["-", "ab", "cd", "e"]
    running.batcher.stop()


def test_larger_batches_are_not_compiled_if_two_are_no_gain():
    """A batch takes 1 s up to two items, and longer than its halves beyond."""
    took = {1: 1.0, 2: 1.0, 4: 2.0, 8: 4.0, 16: 8.0, 32: 16.0}
    model, now = Gated(), [0.0]

    def encode(inputs):
        now[0] += took[len(inputs)]

    model.encode_image = model.encode_text = encode
    speeds = {}
    assert len(list(warm_up(model, 32, speeds, lambda: now[0]))) == 2 * 4
    assert [speeds[Form(False)].best(waiting) for waiting in (1, 3, 40)] == [1, 2, 8]


def test_lanes_and_requests_take_turns(running):
    running.hold()
    texts = running.batcher.submit(TEXT, list("abcdef"))
    images = running.batcher.submit(IMAGE, [image(letter) for letter in "mnopqr"])
    background = running.batcher.submit(BACKGROUND, [image(letter) for letter in "xyz"])
    late = running.batcher.submit(TEXT, ["g"])
    running.free()
    assert [letters(future) for future in (texts, images, background, late)] == ["abcdef", "mnopqr", "xyz", "g"]
    assert running.model.batches == ["-", "agbc", "mnop", "xyz", "def", "qr"]


def test_a_large_request_is_not_shut_out(running):
    """It gets its turn while others come all the time, and they do not wait for it."""
    running.hold()
    large = running.batcher.submit(IMAGE, [image(letter) for letter in "abcdefghi"])
    for letter in "tuvwxyz":
        running.batcher.submit(TEXT, [letter])
        running.free(1)
        running.model.entered.acquire()
    running.free()
    assert letters(large) == "abcdefghi"
    assert running.model.batches == ["-", "abcd", "tu", "v", "w", "x", "efgh", "yz", "i"]


def test_an_item_that_fails_costs_no_other(running):
    running.hold()
    futures = [running.batcher.submit(TEXT, items) for items in (["a", "!"], ["b"])]
    running.free()
    first, error = futures[0].result(10)
    assert chr(int(first[0])) == "a" and isinstance(error, JclipError) and letters(futures[1]) == "b"
    assert running.model.batches == ["-", "ab!", "a", "b", "!"]


def test_a_cancelled_request_gives_up_its_places(running):
    running.hold()
    gone, stays = running.batcher.submit(TEXT, list("ab")), running.batcher.submit(TEXT, ["c"])
    assert gone.cancel() and running.batcher.depth(TEXT) == 1
    running.free()
    assert letters(stays) == "c" and running.model.batches == ["-", "c"]


def test_a_request_cancelled_within_its_batch_disturbs_nobody(running):
    first = running.hold()
    assert first.cancel()
    running.free()
    assert letters(running.batcher.submit(TEXT, ["b"])) == "b"


def test_the_end_finishes_what_waits_without_the_background(running):
    running.hold()
    waiting, background = running.batcher.submit(TEXT, ["a"]), running.batcher.submit(BACKGROUND, [image("x")])
    ending = threading.Thread(target=running.batcher.stop)
    ending.start()
    while not running.batcher._stopping:
        pass
    running.free()
    ending.join(10)
    assert letters(waiting) == "a" and background.cancelled() and running.model.batches == ["-", "a"]


def test_a_request_without_items_is_answered(running):
    assert running.batcher.submit(IMAGE, []).result(1) == []


def test_a_model_that_cannot_be_compiled_is_reported():
    model = Gated()
    model.bundle = None
    batcher = Batcher(model, 1, lambda *each: None)
    batcher.start()
    batcher.stop()
    assert isinstance(batcher.failure, AttributeError) and not batcher.warm


@pytest.mark.parametrize("largest", [1, 3])
def test_every_length_and_size_is_compiled(model, largest):
    """Requests of the small bundle compile nothing after the warm-up."""
    from jclip.encoding import image_encoder, text_encoder
    from jclip.inference import Model
    from jclip.models.compute import DEFAULT

    apart = Model(model.bundle, batch_size=largest)
    deque(warm_up(apart, largest, {}, seconds()), maxlen=0)
    config = model.bundle.config
    encoders = text_encoder(config, DEFAULT), image_encoder(config, model.bundle.preprocessing, DEFAULT)
    sizes = [encoder._cache_size() for encoder in encoders]
    for count in range(1, largest + 1):
        apart.encode_text(["红色的猫" * 9] * count)
        apart.encode_text(["红"] * count)
        apart.encode_image(np.zeros((count, 32, 32, 3), np.uint8))
    assert [encoder._cache_size() for encoder in encoders] == sizes
