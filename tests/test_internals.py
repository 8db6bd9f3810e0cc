"""Private parts of jax and orbax: if a version moves them, these tests fail before a run on many hosts does."""

import gc
import inspect
import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import PartitionSpec

from jclip import internals
from jclip.parallel.mesh import make_mesh


def test_jaxs_coordination_service():
    """Checks the names of its state and of its client's methods."""
    from jax._src import distributed
    from jax._src.lib import _jax

    state = distributed.global_state
    assert (state.client, state.coordinator_address, state.process_id) == (None, None, 0)
    assert internals.process_count() == 1 and internals.process_index() == 0
    client = _jax.DistributedRuntimeClient
    for method in (
        *("key_value_set", "key_value_delete", "key_value_dir_get", "blocking_key_value_get", "wait_at_barrier"),
    ):
        assert callable(getattr(client, method)), method
    arguments = inspect.signature(jax.distributed.initialize).parameters
    used = {"initialization_timeout", "heartbeat_timeout_seconds", "shutdown_timeout_seconds"}
    assert used | {"cluster_detection_method", "coordinator_address"} <= arguments.keys()


def test_the_current_mesh_in_a_trace():
    assert internals.current_mesh().empty
    mesh = make_mesh()
    seen = []

    def look(x):
        seen.append(internals.current_mesh())
        return x

    @jax.jit
    def traced(x):
        x, _ = jax.lax.scan(lambda x, _: (jax.checkpoint(look)(x), None), x, length=1)
        return jax.shard_map(look, in_specs=PartitionSpec("fsdp"), out_specs=PartitionSpec("fsdp"))(x)

    with jax.set_mesh(mesh):
        jax.eval_shape(traced, jnp.ones(8))
    assert len(seen) >= 2 and all(each is mesh for each in seen)
    assert internals.current_mesh().empty


@pytest.mark.filterwarnings("ignore")
def test_orbaxs_orphaned_readers(tmp_path):
    """Reading many arrays, one of them damaged, leaves coroutines with orbax's file names; they end."""
    state = {f"{number:03}": np.arange(100_000.0) for number in range(20)}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        seen = []
        read = ocp.type_handlers.NumpyHandler.deserialize

        async def deserialize(*arguments, **more):
            seen.extend(internals.orphaned_readers())
            return await read(*arguments, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ocp.type_handlers.NumpyHandler, "deserialize", deserialize)
            checkpointer.restore(tmp_path / "state")
    assert seen  # while they read, they are found
    seen.clear()
    with internals.orphaned_readers_end():
        gc.collect()
    assert not internals.orphaned_readers()


def test_orbaxs_log_is_absls(caplog):
    """Its tracebacks are dropped and other warnings kept; afterwards the logger is as before."""
    filters, hook = list(logging.getLogger("absl").filters), sys.unraisablehook
    with internals.no_orbax_tracebacks():
        log = logging.getLogger("absl")
        log.error("failed", exc_info=ValueError("x"))
        log.warning("kept")
    assert [record.getMessage() for record in caplog.records] == ["kept"]
    assert log.filters == filters and sys.unraisablehook is hook
    assert "from absl import logging" in inspect.getsource(sys.modules[ocp.CheckpointManager.__module__])
