"""What two processes do for test_processes.py: `python -m tests.parallel.alone_together SCENE FOLDER`."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError
from jclip.parallel.processes import agree, connect, first, meet, said_by_first, sharing_errors, together
from jclip.parallel.sharding import place_whole
from jclip.train.workplace import alone_in

ME = int(os.environ["JCLIP_PROCESS"])


def fail(where, process=1, kind=JclipError):
    if process == ME:
        raise kind(f"{where} failed")


def caught(act):
    """The words of the error that `act` ends with."""
    try:
        act()
    except (JclipError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def meetings(folder):
    """Words, errors, errors in errors, and then words again: still in step."""
    print("all", meet(f"word {ME}"))
    print("one", meet("word" if ME else None))
    print("none", meet())
    print("first", said_by_first(f"from {ME}"))
    print("together", caught(lambda: together(lambda: fail("act"))))
    print("a bug", caught(lambda: together(lambda: fail("act", kind=ValueError))))
    print("first alone", caught(lambda: first(lambda: fail("writing", 0))))

    def outer():
        fail("before the inner meeting")
        together(lambda: None)

    print("outer", caught(lambda: together(outer)))
    print("inner", caught(lambda: together(lambda: together(lambda: fail("inner")))))
    print(
        "agree",
        caught(lambda: agree("number", str(ME), lambda *both: ", here ".join(both) if len({*both}) > 1 else None)),
    )
    print("still in step", meet(f"{ME}"))


def out_of_turn(folder):
    """An error that the others learn of at whatever meeting comes next."""
    with sharing_errors():
        if ME:
            raise JclipError("this one stumbled")
        print("heard", meet())


def ending(folder):
    """A usage error of one process."""
    with sharing_errors():
        if ME:
            sys.exit(2)
        meet()


def other_folders(folder):
    """Each its own."""
    with alone_in(folder / str(ME)):
        print("not reached")


def places(folder):
    """Host arrays on a mesh over both; nothing is compared between them."""
    whole = np.arange(8.0).reshape(4, 2)
    at = NamedSharding(jax.make_mesh((2,), ("fsdp",)), PartitionSpec("fsdp"))
    placed = place_whole({"a": whole}, {"a": at})["a"]
    (mine,) = placed.addressable_shards
    np.testing.assert_array_equal(mine.data, whole[2 * ME : 2 * ME + 2])
    print("placed")


def damage(folder):
    """A checkpoint whose second share cannot be read by the second process gives way to the one before."""
    at = NamedSharding(jax.make_mesh((2,), ("fsdp",)), PartitionSpec("fsdp"))
    array = place_whole(np.arange(400_000, dtype=np.float32), at)
    checkpoints = Checkpoints(folder)
    for number in (1, 2):
        checkpoints.save(Position(0, number, number), {"a": array + number}, {}, score=float(number))
    checkpoints.close()
    if not ME:
        for file in (folder / "2" / "state" / "ocdbt.process_1").rglob("*"):
            if file.is_file() and file.stat().st_size > 100_000:
                file.write_bytes(file.read_bytes()[:1000])
    meet()
    checkpoints = Checkpoints(folder)
    like = {"a": jax.ShapeDtypeStruct(array.shape, jnp.float32, sharding=at)}
    found = checkpoints.restore(lambda *_: like, warn=lambda words: print("warning", "/2 is damaged" in words))
    print("restored", found.position.total, checkpoints.best())
    np.testing.assert_array_equal(found.state["a"].addressable_shards[0].data, (array + 1).addressable_shards[0].data)
    checkpoints.close()


if __name__ == "__main__":
    connect()
    try:
        globals()[sys.argv[1]](Path(sys.argv[2]))
    except JclipError as error:
        print(f"JclipError: {error}")
        sys.exit(1)
