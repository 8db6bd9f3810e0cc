"""Checkpoints by themselves: which are kept, and how damage is noticed."""

import json
import os
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jclip.checkpoint
from jclip.checkpoint import Checkpoints, Position
from jclip.errors import JclipError

ARRAYS = {"a": jax.random.normal(jax.random.key(0), (64, 64)), "b": {"c": jnp.arange(5)}}


def like(position, record):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), ARRAYS)


def state(number):
    return jax.tree.map(lambda leaf: leaf + number, ARRAYS)


def save(folder, numbers, keep=9, scores=None):
    checkpoints = Checkpoints(folder, keep)
    for number in numbers:
        journal = [{"kind": "train", "total": number, "loss": 0.1}]
        score = (scores or {}).get(number)
        checkpoints.save(Position(0, number, number), state(number), {"config": {"x": 1}}, journal, score)
    checkpoints.close()


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def zero_all(folder):
    for file in folder.rglob("*"):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))


def arrays(checkpoint):
    """Returns the file with most of the array data."""
    return max(
        (file for file in (checkpoint / "state").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(bytes(data))


DAMAGES = {
    "truncated": lambda at: os.truncate(arrays(at), arrays(at).stat().st_size // 2),
    "a bit": lambda at: flip(arrays(at)),
    "a file gone": lambda at: arrays(at).unlink(),
    "no record": lambda at: shutil.rmtree(at / "record"),
    "empty": lambda at: [shutil.rmtree(path) for path in at.iterdir() if path.is_dir()],
    "another step": lambda at: edit(at / "record" / "metadata", '"step": 2', '"step": 3'),
    "another configuration": lambda at: edit(at / "record" / "metadata", '"x": 1', '"x": 2'),
    "no seal": lambda at: edit(at / "record" / "metadata", '"seal"', '"seam"'),
    "another checksum": lambda at: edit(at / "record" / "metadata", '"checksums"', '"checksum!"'),
    "half a record": lambda at: (at / "record" / "metadata").write_text('{"config": {'),
    "a record of something else": lambda at: (at / "record" / "metadata").write_text("[]"),
    "another figure": lambda at: edit(at / "journal" / "metadata", "0.1", "0.2"),
    "no journal": lambda at: (at / "journal" / "metadata").unlink(),
    "zeros": zero_all,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_is_noticed(tmp_path, damage):
    folder, warnings = tmp_path / "checkpoints", []
    save(folder, (1, 2), scores={1: 0.5, 2: 0.7})
    DAMAGES[damage](folder / "2")
    checkpoints = Checkpoints(folder)
    found = checkpoints.restore(like, warn=warnings.append)
    assert found.position == Position(0, 1, 1) and found.journal == [{"kind": "train", "total": 1, "loss": 0.1}]
    jax.tree.map(np.testing.assert_array_equal, found.state, state(1))
    (warning,) = warnings
    assert f"{folder}/2 is damaged" in warning and (tmp_path / "damaged" / "2").is_dir()
    # Saving goes on: the same step again, and the best is the undamaged one.
    assert checkpoints.best() == 1
    checkpoints.save(Position(0, 2, 2), state(2), {"config": {"x": 1}})
    assert checkpoints.restore(like).position.total == 2
    checkpoints.close()


def test_the_last_and_the_best_are_kept(tmp_path):
    save(tmp_path, range(1, 7), keep=2, scores={2: 0.5, 3: 0.9, 4: 0.9, 5: 0.1})
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 5, 6]  # the newer of two with equal scores
    save(tmp_path, (7, 8), keep=1)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 8]
    checkpoints = Checkpoints(tmp_path, 1)
    assert (checkpoints.best(), checkpoints.best_score()) == (4, 0.9)
    checkpoints.close()


def test_a_damaged_best_is_not_used_and_the_others_are_kept(tmp_path):
    folder, warnings = tmp_path / "checkpoints", []
    save(folder, (1, 2, 3), scores={1: 0.9, 2: 0.5})
    (folder / "1" / "record" / "metadata").write_text("")
    checkpoints = Checkpoints(folder)
    assert checkpoints.best() == 2  # its score cannot be read
    zero_all(folder / "2" / "state")
    assert checkpoints.restore(like, 2, warn=warnings.append) is None
    assert "is not used" in warnings[0] and checkpoints.numbers() == [1, 3]
    assert checkpoints.restore(like).position.total == 3
    checkpoints.close()


def test_an_error_of_the_caller_does_not_count_as_damage(tmp_path):
    save(tmp_path, (1,))
    checkpoints = Checkpoints(tmp_path)

    def refuse(position, record):
        raise JclipError("another run's")

    with pytest.raises(JclipError, match="^another run's$"):
        checkpoints.restore(refuse)
    checkpoints.close()
    assert json.loads((tmp_path / "1" / "record" / "metadata").read_text())["total"] == 1


def test_a_damaged_state_is_freed_before_the_next_is_read(tmp_path, monkeypatch):
    save(tmp_path / "checkpoints", (1, 2))
    seen, damage = [], jclip.checkpoint._damage

    def damaged(found):
        assert not [reference for reference in seen if reference() is not None]
        seen.append(weakref.ref(found.state["a"]))
        return "a is not what was saved" if len(seen) == 1 else damage(found)

    monkeypatch.setattr(jclip.checkpoint, "_damage", damaged)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore(like, warn=lambda _: None).position.total == 1
    assert len(seen) == 2
    checkpoints.close()


def test_other_errors_leave_the_checkpoints_alone(tmp_path, monkeypatch):
    save(tmp_path, (1, 2))

    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointHandler.restore", fail)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(jax.errors.JaxRuntimeError):
        checkpoints.restore(like)
    assert checkpoints.numbers() == [1, 2]
    checkpoints.close()
