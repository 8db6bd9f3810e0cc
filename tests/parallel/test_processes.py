"""Two real processes that stay in step, whatever happens to one of them alone."""

import sys
import time

import pytest

from tests.train.cluster import finish, start_all


def play(scene, folder):
    """(exit code, lines) of both processes; neither may hang."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.parallel.alone_together", scene, str(folder)]
    ended = finish(start_all([command] * 2, devices=1))
    assert time.monotonic() - begun < 110, "one waited in vain for the other"
    return [(code, said.splitlines()) for code, said in ended]


def test_meetings(tmp_path):
    (code, zero), (other, one) = play("meetings", tmp_path)
    assert code == other == 0, (zero, one)
    assert zero[:4] == one[:4] == ["all ['word 0', 'word 1']", "one ['word']", "none []", "first from 0"]
    assert zero[4:] == [
        "together JclipError: process 1: act failed",
        "a bug JclipError: process 1: act failed",
        "first alone JclipError: process 0: writing failed",
        "outer JclipError: process 1: before the inner meeting failed",
        "inner JclipError: process 1: inner failed",
        "agree JclipError: process 1: this has another number than the first process (0, here 1): start all alike",
        "still in step ['0', '1']",
    ]
    assert one[4:] == [zero[4], "a bug ValueError: act failed", *zero[6:]]


@pytest.mark.parametrize(
    ("scene", "codes", "words"),
    [
        ("out_of_turn", [1, 1], ["JclipError: process 1: this one stumbled", "JclipError: this one stumbled"]),
        ("ending", [1, 2], ["JclipError: process 1: ended with code 2: see what it said", None]),
        ("places", [0, 0], ["placed", "placed"]),
    ],
)
def test_one_stumbles_and_none_waits(tmp_path, scene, codes, words):
    ended = play(scene, tmp_path)
    assert [code for code, _ in ended] == codes, ended
    assert [lines[-1] if lines else None for _, lines in ended] == words


def test_a_folder_that_is_not_shared_is_noticed(tmp_path):
    ended = play("other_folders", tmp_path)
    assert [code for code, _ in ended] == [1, 1]
    assert all(
        "1 is not the folder that the first process sees: give all the same one" in said[-1] for _, said in ended
    )


def test_what_one_cannot_read_of_a_checkpoint_none_reads(tmp_path):
    ended = play("damage", tmp_path / "checkpoints")
    assert [code for code, _ in ended] == [0, 0], ended
    assert all(lines[-2:] == ["warning True", "restored 1 1"] for _, lines in ended), ended
    assert (tmp_path / "damaged" / "2").is_dir()
