"""Frozen parameters in the host's memory, as on accelerators: the same run, to the bit."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jclip import rules
from jclip.errors import JclipError
from jclip.images.on_host import HostAugmentation
from jclip.parallel.memory import have_own_memory
from jclip.parallel.mesh import MeshShape, make_mesh
from jclip.train.health import first_broken
from jclip.train.loop import train
from jclip.train.parked import Parked, on_devices, parked, unparked
from jclip.train.planning.stage_plan import device_bytes, plan_stages, whole_state_bytes
from jclip.train.state import TrainState
from tests.train.assembled import assembled, shapes_of
from tests.train.runs import Watch, assert_same_bundles, bundles, losses


def arrays(mesh):
    """Returns a state whose frozen arrays are split over rows, over columns, and not at all."""
    specs = {"rows": PartitionSpec("data"), "columns": PartitionSpec(None, ("data", "fsdp")), "copies": PartitionSpec()}
    places = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    values = {name: np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32) for name in specs}
    frozen = {name: jax.device_put(values[name], place) for name, place in places.items()}
    frozen["number"] = jax.device_put(np.float32(3), NamedSharding(mesh, PartitionSpec()))
    values["number"] = np.float32(3)
    return TrainState({"w": jnp.ones(2)}, {"image": frozen}, {}, {}), values


def test_there_and_back():
    mesh = make_mesh(MeshShape(data=4, fsdp=2))
    state, values = arrays(mesh)
    held = parked(state)
    assert held.trainable is state.trainable
    assert all(isinstance(leaf, Parked) for leaf in jax.tree.leaves(held.frozen))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.frozen))
    found = held.frozen["image"]
    assert {name: len(leaf.shards) for name, leaf in found.items()} == {
        "rows": 4,
        "columns": 8,
        "copies": 1,
        "number": 1,
    }
    for name, leaf in unparked(held).frozen["image"].items():
        np.testing.assert_array_equal(leaf, values[name])
        assert leaf.sharding == found[name].sharding and leaf.dtype == jnp.float32
        low = found[name].on_devices(jnp.bfloat16)
        np.testing.assert_array_equal(low, jnp.asarray(values[name]).astype(jnp.bfloat16))
        assert low.sharding == leaf.sharding


def test_copies_last_as_long_as_their_block():
    state, values = arrays(make_mesh())
    held, seen = parked(state), []

    def fail():
        with on_devices(held) as whole:
            seen.append(whole)
            np.testing.assert_array_equal(whole.frozen["image"]["rows"], values["rows"])
            raise JclipError("")

    with pytest.raises(JclipError):
        fail()
    (whole,) = seen
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(whole.frozen))
    assert not jax.tree.leaves(whole.trainable)[0].is_deleted()
    with on_devices(unparked(held)) as whole:
        pass
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(whole.frozen))  # they were there before


def test_what_is_broken_is_named():
    state, _ = arrays(make_mesh())
    rows = state.frozen["image"]["rows"]
    broken = state._replace(frozen={"image": {**state.frozen["image"], "rows": rows.at[0, 0].set(jnp.nan)}})
    assert first_broken(parked(broken)) == "image/rows"


def test_a_cpu_has_no_memory_of_its_own(toy_run):
    part = assembled(toy_run)
    assert not have_own_memory(part.mesh) and not part.devices.own_memory
    with jax.set_mesh(part.mesh):
        state = part.start()
        assert part.between_steps(state) is state and part.taken_of(state) is state
    assert plan_stages(toy_run, part.devices)[0].host_bytes == 0


@pytest.fixture
def run(toy_run):
    """Both stages of the toy, of which the first has a frozen tower, and an evaluation after each step."""
    return replace(toy_run, evaluate_every=1, checkpoint_every=1)


def images(variables):
    """Evaluates a model by its frozen tower."""
    return {"size": float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(variables["params"]["image"])))}


def test_a_run_is_the_same_to_the_bit(run, toy_run, trained_once, tmp_path, own_memory_for):
    """The second stage starts from the frozen parameters, and the run resumes in it; in the first: the next test."""
    whole, watch = trained_once(toy_run), Watch()
    with own_memory_for():
        other = train(run, tmp_path / "other", evaluators={"image": images}, watcher=watch)
        train(run, tmp_path / "parts", evaluators={"image": images}, stop_after=3)
        parts = train(run, tmp_path / "parts", evaluators={"image": images})
    assert_same_bundles(other.bundles, bundles(whole))
    assert_same_bundles(parts.bundles, bundles(whole))
    assert losses(tmp_path / "other") == losses(tmp_path / "parts") == losses(whole)
    sizes = [record["image/size"] for record in watch.records if record["kind"] == "evaluation"]
    assert len(sizes) == 5 and sizes[0] == sizes[1] == sizes[2] != sizes[3]


def test_a_run_goes_on_with_other_memory(run, toy_run, trained_once, tmp_path, own_memory_for):
    train(run, tmp_path / "from_cpu", stop_after=1)
    with own_memory_for():
        ends = [train(run, tmp_path / "from_cpu").bundles]
        train(run, tmp_path / "to_cpu", stop_after=1)
    ends.append(train(run, tmp_path / "to_cpu").bundles)
    for end in ends:
        assert_same_bundles(end, bundles(trained_once(toy_run)))


def test_a_cached_tower_is_not_on_the_devices(run, tmp_path, own_memory_for):
    objective = replace(run.stages[0].objective, host_augmentation=HostAugmentation())
    stage = replace(run.stages[0], objective=objective, cache=str(tmp_path / "cache"))
    run = replace(run, stages=(stage,), evaluate_every=0, checkpoint_every=0)
    shape = rules.paths_of(shapes_of(run).state_shapes.frozen)["image/input/kernel"].shape

    def trained(name):
        live = []

        def look(step):
            live.append(sum(leaf.shape == shape and not leaf.is_deleted() for leaf in jax.live_arrays()))

        return train(run, tmp_path / name, watcher=Watch(look)).bundles, live[-2:]

    expected, live = trained("whole")
    assert all(live)
    with own_memory_for():
        others, live = trained("other")
    assert live == [0, 0]
    assert_same_bundles(others, expected)


def test_what_a_plan_says(chinese_clip, own_memory):
    """The state on a device is smaller by what is not on it; saving needs the whole state."""
    run = replace(chinese_clip, dtype="bfloat16", stages=chinese_clip.stages[:1])
    part = shapes_of(run)
    (plan,) = plan_stages(run, part.devices)
    frozen = jax.tree.leaves(part.state_shapes.frozen)
    assert plan.host_bytes == sum(4 * leaf.size for leaf in frozen)
    read = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part.read))
    assert plan.device_state_bytes == plan.state_bytes - plan.host_bytes + read
    assert 0.5 * plan.host_bytes < read < 0.6 * plan.host_bytes
    assert whole_state_bytes(part) == plan.state_bytes + read


def test_saving_may_need_more_than_a_step(run, own_memory):
    """A tower that the step does not read, and hardly anything that trains."""
    stage = replace(run.stages[0], trains=((r"logit_scale", True), (r".*", False)), cache="cache")
    part = shapes_of(replace(run, stages=(stage,)))
    taken = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part.taken))
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part.state_shapes))
    assert taken < whole <= whole_state_bytes(part) <= device_bytes(part)
