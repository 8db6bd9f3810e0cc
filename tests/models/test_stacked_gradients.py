"""Gradients of stacked matrices: stacked in the dtype of the computation, with the numbers of a plain scan."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from jclip.models.bert import BertConfig
from jclip.models.clip_text import ClipTextConfig
from jclip.models.compute import Compute
from jclip.models.transformer import SHALLOW
from jclip.models.vit import VitConfig
from tests.models.parity import ragged_ids, random_images, random_variables

LAYERS = SHALLOW + 1
IDS = ragged_ids([5, 2, 9], 90, 0)
BERT = BertConfig(90, 24, LAYERS, 2, 60, 12, 2, 0, 1e-12)
TOWERS = {
    "image": (VitConfig(image_size=8, patch_size=4, width=24, layers=LAYERS, heads=2), random_images(3, 8), {}),
    "bert": (BERT, IDS, {"rngs": {"dropout": jax.random.key(0)}, "rows_b": jnp.arange(3)}),
    "clip": (ClipTextConfig(vocab_size=90, context_length=12, width=24, layers=LAYERS, heads=2), IDS, {}),
}


def loss_and_params(tower: str, compute: Compute, *, plain: bool = False, frozen_layers: int = 0) -> Any:
    """Returns a tower's loss as a function of its parameters, and the parameters; `plain` for flax's own scan."""
    config, inputs, options = TOWERS[tower]
    config = replace(config, layers=frozen_layers + LAYERS)
    model = config.build(7, compute, frozen_layers=frozen_layers)
    params = random_variables(model, inputs)["params"]

    def loss(params: Any) -> jax.Array:
        # Intermediates are captured from whole modules, so the stack is run by flax.
        out = model.apply({"params": params}, inputs, mutable=["intermediates"] if plain else False, **options)
        return jnp.square((out[0] if plain else out).astype(jnp.float32)).sum()

    return loss, params


def stacked_matrices(jaxpr: Any) -> Iterator[jax.core.ShapedArray]:
    """Yields what reversed scans stack and has the shape of a stack of matrices."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan" and equation.params["reverse"]:
            body = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
            both = zip(equation.outvars, body.outvars, strict=True)
            yield from (outer.aval for outer, inner in both if outer.aval.ndim == inner.aval.ndim + 1 == 3)
        for value in equation.params.values():
            if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
                yield from stacked_matrices(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("remat", ["none", "dots"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_matrices_are_stacked_in_the_dtype_of_the_computation(tower, remat, dtype):
    loss, params = loss_and_params(tower, Compute(dtype, remat))
    gradients = jax.make_jaxpr(jax.grad(loss))(params)
    assert [each.dtype for each in stacked_matrices(gradients.jaxpr)] == [dtype] * 6
    assert {each.dtype for each in gradients.out_avals} == {jnp.dtype("float32")}


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_are_those_of_a_plain_scan(tower, dtype):
    def gradients(plain: bool) -> Any:
        loss, params = loss_and_params(tower, Compute(dtype, "dots"), plain=plain)
        # Otherwise XLA may leave out the rounding to bfloat16, and does so on CPUs.
        return jax.jit(jax.grad(loss), compiler_options={"xla_allow_excess_precision": False})(params)

    jax.tree.map(np.testing.assert_array_equal, gradients(False), gradients(True))


def test_frozen_layers_have_no_backward_pass():
    """Their matrices are not differentiated, although the embeddings below them are."""
    loss, params = loss_and_params("image", Compute(jnp.bfloat16, "dots"), frozen_layers=2)
    trained = {"position_embedding": params["position_embedding"], "layers": params["layers"]}
    gradients = jax.make_jaxpr(jax.grad(lambda trained: loss({**params, **trained})))(trained)
    assert {each.shape[0] for each in stacked_matrices(gradients.jaxpr)} == {LAYERS}
