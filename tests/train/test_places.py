"""Shardings of a step's inputs and results: nothing is moved before a step, and the next one takes what it returns."""

from dataclasses import replace

import jax
import pytest

from jclip.parallel.mesh import MeshShape
from tests.train.assembled import assembled, first_inputs
from tests.train.placed import moved, taken

MESHES = {
    "data": MeshShape(),
    "fsdp": MeshShape(1, 8),
    "data x fsdp": MeshShape(4, 2),
    "data x tensor": MeshShape(4, 1, 2),
    "all": MeshShape(2, 2, 2),
}


@pytest.mark.parametrize("mesh", MESHES)
def test_a_step_takes_what_it_returns(mesh, toy_run):
    part = assembled(replace(toy_run, mesh=MESHES[mesh], max_replicated=1.0), 1)
    with jax.set_mesh(part.mesh):
        inputs = first_inputs(part)
        program = part.program_for(*inputs, jax.random.key(0))
        assert not moved(inputs, program.input_shardings[0][:3])
        state, _ = program(*inputs, jax.random.key(0))
        assert not moved(state, program.input_shardings[0][0])


@pytest.mark.parametrize("mesh", ["data", "all"])
def test_inputs_are_where_a_step_takes_them(mesh, altclip):
    """The parameters, the teacher's and the batches, as a run creates and reads them; the step is lowered for these."""
    part = assembled(replace(altclip, mesh=MESHES[mesh], max_replicated=1.0))
    with jax.set_mesh(part.mesh):
        inputs = first_inputs(part)
    assert inputs[1], "a teacher"
    assert not moved(inputs, jax.tree.map(lambda leaf: leaf.sharding, taken(part)))


def test_a_moved_batch_is_noticed(toy_run):
    part = assembled(toy_run, 1)
    with jax.set_mesh(part.mesh):
        state, constants, batch = first_inputs(part)
        wrong = batch | {"text": jax.device_put(batch["text"], jax.NamedSharding(part.mesh, jax.P()))}
    places = jax.tree.map(lambda leaf: leaf.sharding, taken(part))
    (found,) = moved((state, constants, wrong), places)
    assert "['text']" in found
