"""Scenes of two processes, one after another: `python -m tests.parallel.scenes JOB.pickle`, for test_processes.py.

Each process writes FOLDER/SCENE-INDEX.json: the lines that it said, and the error with which the scene ended.
"""

import json
import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jclip.checkpoint import Checkpoints, Position
from jclip.encoding import Encoder
from jclip.errors import JclipError
from jclip.parallel import processes
from jclip.parallel.processes import (
    barrier,
    broadcast,
    connect,
    everywhere,
    gather,
    on_first,
    same_everywhere,
    sharing_errors,
)
from jclip.parallel.sharding import place_whole
from jclip.tokenizers.text import load_tokenizer
from jclip.train import preparing
from jclip.train.loop import train
from jclip.train.workplace import exclusive
from tests.train.assembled import assemble_once
from tests.train.runs import Watch, png

ME = int(os.environ.get("JCLIP_PROCESS", "0"))


def fail(where, process=1, kind=JclipError):
    if process == ME:
        raise kind(f"{where} failed")


def caught(act):
    """Returns the error that `act` raises, as text."""
    try:
        act()
    except (JclipError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def exchanges(folder, run, say):
    """Exchanges values, errors, nested errors, and values again, because the processes must stay in step."""
    say("all", gather(f"word {ME}"))
    say("one", gather({"value": [1]} if ME else None))
    say("none", gather())
    say("first", broadcast(f"from {ME}"), broadcast(None))
    say("everywhere", caught(lambda: everywhere(lambda: fail("act"))))
    say("a bug", caught(lambda: everywhere(lambda: fail("act", kind=ValueError))))
    say("on first", caught(lambda: on_first(lambda: fail("writing", 0))))

    def outer():
        fail("before the inner exchange")
        everywhere(lambda: None)

    say("outer", caught(lambda: everywhere(outer)))
    say("inner", caught(lambda: everywhere(lambda: everywhere(lambda: fail("inner")))))
    say(
        "same",
        caught(
            lambda: same_everywhere("the number", ME, lambda *both: f"{both[0]}, here {both[1]}" if ME else None),
        ),
    )
    say("still in step", gather(f"{ME}"))


def out_of_turn(folder, run, say):
    """Raises an error on process 1, of which the other learns at its next exchange."""
    with sharing_errors():
        if ME:
            raise JclipError("this one stumbled")
        say("heard", gather())


def ending(folder, run, say):
    """Ends process 1 with a usage error."""
    with sharing_errors():
        if ME:
            sys.exit(2)
        barrier()


def other_folders(folder, run, say):
    """Gives each process a folder of its own."""
    processes._DISK_SECONDS = 1
    with exclusive(folder / str(ME)):
        say("not reached")


def places(folder, run, say):
    """Places a host array on a mesh over both processes."""
    whole = np.arange(8.0).reshape(4, 2)
    at = NamedSharding(jax.make_mesh((2,), ("fsdp",)), PartitionSpec("fsdp"))
    placed = place_whole({"a": whole}, {"a": at})["a"]
    (mine,) = placed.addressable_shards
    np.testing.assert_array_equal(mine.data, whole[2 * ME : 2 * ME + 2])
    say("placed")


def damage(folder, run, say):
    """Restores the last but one of two checkpoints, because process 1 cannot read its shard of the last."""
    folder = folder / "checkpoints"
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
    barrier()
    checkpoints = Checkpoints(folder)
    like = {"a": jax.ShapeDtypeStruct(array.shape, jnp.float32, sharding=at)}
    found = checkpoints.restore(lambda *_: like, warn=lambda words: say("warning", "/2 is damaged" in words))
    say("restored", found.position.total, checkpoints.best())
    np.testing.assert_array_equal(found.state["a"].addressable_shards[0].data, (array + 1).addressable_shards[0].data)
    checkpoints.close()


def unreadable_picture(folder, run, say):
    """Encodes an unreadable image."""
    encoder = Encoder(run.model, load_tokenizer(Path(run.tokenizer)), run.preprocessing, 8, batch_size=2)
    encoder.images({}, [png(0), b"no picture"])


def trained(run, folder, say, act=lambda step: None, **arguments):
    outcome = train(run, folder / "run", watcher=Watch(act), **arguments)
    say("outcome", outcome.finished, outcome.position.total, outcome.signal)


def whole_run(folder, run, say):
    """Trains two stages on both processes."""
    trained(run, folder, say)


def signal_to_one(folder, run, say):
    trained(run, folder, say, lambda step: ME and os.kill(os.getpid(), signal.SIGTERM))


def other_configuration(folder, run, say):
    optimizer = replace(run.stages[0].optimizer, beta1=0.5)
    other = replace(run, stages=(replace(run.stages[0], optimizer=optimizer), *run.stages[1:]))
    trained(other if ME else run, folder, say)


def evaluation_stumbles(folder, run, say):
    """Fails an evaluation on process 1, at its second call."""
    calls = []

    def evaluator(variables):
        calls.append(1)
        if ME and len(calls) == 2:
            raise JclipError("the gallery burned down")
        return {"figure": 1.0}

    trained(replace(run, evaluate_every=1), folder, say, evaluators={"toy": evaluator})


def watcher_fails(folder, run, say):
    """Raises an error on process 1 in the middle of a run, outside any exchange."""

    def act(step):
        if ME:
            raise RuntimeError("the watcher fell over")

    trained(run, folder, say, act)


def disk_of_one_is_full(folder, run, say):
    """Fills the disk of process 1. Must be the last scene, because the writers' barriers stay broken."""
    import resource

    folder = folder / "checkpoints"
    at = NamedSharding(jax.make_mesh((2,), ("fsdp",)), PartitionSpec("fsdp"))
    state = {"a": place_whole(np.random.default_rng(0).normal(size=(8, 5000)).astype(np.float32), at)}
    with sharing_errors():
        checkpoints = Checkpoints(folder)
        try:
            checkpoints.save(Position(0, 1, 1), state, {})
            checkpoints.wait()
            if ME:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            checkpoints.save(Position(0, 2, 2), state, {})
            checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, 2 * resource.getrlimit(resource.RLIMIT_FSIZE)[1:])
            checkpoints.close()


SCENES = (
    *(exchanges, out_of_turn, ending, other_folders, places, damage, unreadable_picture, whole_run, signal_to_one),
    *(other_configuration, evaluation_stumbles, watcher_fails, disk_of_one_is_full),
)


def main(job):
    folder, run = pickle.loads(job.read_bytes())
    connect()
    preparing.assemble = assemble_once  # a scene that trains again compiles nothing again
    for scene in SCENES:
        lines, error = [], None
        try:
            scene(folder / scene.__name__, run, lambda *words, into=lines: into.append(" ".join(map(str, words))))
        except (Exception, SystemExit) as raised:
            error = f"{type(raised).__name__}: {raised}"
        (folder / f"{scene.__name__}-{ME}.json").write_text(json.dumps({"lines": lines, "error": error}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
