"""Frozen parameters as a stage's step reads them: which ones, and in which precision.

A tower that computes in bfloat16 converts most of its float32 parameters to bfloat16 before it computes with them.
Frozen ones can be converted once instead: the step computes the same. (XLA may omit a conversion to bfloat16 and back,
`xla_allow_excess_precision`, and could do so in one of the two programs only. Without that the results are equal to the
bit.) The jaxpr of the step says which parameters these are, so that a tower need not declare it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jclip import rules
from jclip.stages import Batch, Constants, Metrics
from jclip.train.layout import merge
from jclip.train.state import TrainState
from jclip.train.step import Step

_MOVES = {"broadcast_in_dim", "copy", "dynamic_slice", "gather", "reshape", "sharding_constraint", "slice", "squeeze"}
_MOVES |= {"stop_gradient", "transpose"}
"""Primitives whose result has values of their first argument, unchanged."""
_CALLS = {"checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "remat2", "scan", "shard_map"}
"""Primitives with one inner jaxpr, which takes their arguments in their order and returns their results."""


class Reads(NamedTuple):
    """Reads of one argument of a jaxpr.

    Attributes:
      dtypes: dtypes to which its values are converted before anything is computed from them; its own dtype among them
        if something is computed without a conversion.
      results: numbers of the jaxpr's results that are values of it, unchanged.
    """

    dtypes: frozenset[Any]
    results: frozenset[int]


def frozen_reads(step: Step, dtype: Any, state: TrainState, *inputs: Any) -> dict[str, Any]:
    """Returns the shapes of the frozen parameters that a step reads, nested: of those that it reads in `dtype`, in it.

    Args:
      step: a pure step, which is only traced.
      dtype: floating dtype in which the towers compute.
      state: shapes of the training state, with shardings.
      inputs: shapes of the step's other arguments.
    """
    jaxpr = jax.make_jaxpr(step)(state, *inputs).jaxpr
    first = len(jax.tree.leaves(state.trainable))
    found = {}
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state.frozen), first):
        dtypes = _reads(jaxpr, number).dtypes
        if dtypes:
            narrow = dtypes == {jnp.dtype(dtype)} and jnp.dtype(dtype).itemsize < leaf.dtype.itemsize
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            found[name] = jax.ShapeDtypeStruct(leaf.shape, dtype if narrow else leaf.dtype, sharding=leaf.sharding)
    return rules.tree_from_paths(found)


def with_frozen_reads(step: Step, frozen: dict[str, Any]) -> Step:
    """Returns the step for states whose `frozen` is the result of `frozen_reads`; `frozen` has the shapes of all."""

    def narrowed(state: TrainState, constants: Constants, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        present = rules.paths_of(state.frozen)
        # Nothing reads these, so XLA makes no arrays of them. They keep the tree complete for checks of its shapes.
        unread = {
            path: jnp.zeros(leaf.shape, leaf.dtype)
            for path, leaf in rules.paths_of(frozen).items()
            if path not in present
        }
        whole = merge(rules.tree_from_paths(unread), state.frozen)
        next_state, metrics = step(state._replace(frozen=whole), constants, batch, key)
        return next_state._replace(frozen=state.frozen), metrics

    return narrowed


def _reads(jaxpr: core.Jaxpr, number: int) -> Reads:
    """Returns the reads of argument `number`."""
    values, dtypes = {jaxpr.invars[number]}, set[Any]()
    for equation in jaxpr.eqns:
        for position, variable in enumerate(equation.invars):
            if isinstance(variable, core.Literal) or variable not in values:
                continue
            found = _reads_of_equation(equation, position)
            dtypes |= found.dtypes
            values |= {equation.outvars[result] for result in found.results}
    results = _positions(jaxpr.outvars, values)
    return Reads(frozenset(dtypes), frozenset(results))


def _reads_of_equation(equation: Any, position: int) -> Reads:
    name, params = equation.primitive.name, equation.params
    if name == "convert_element_type":
        return Reads(frozenset((jnp.dtype(params["new_dtype"]),)), frozenset())
    if name in _MOVES and position == 0:
        return Reads(frozenset(), frozenset((0,)))
    inner = [value for value in params.values() if isinstance(value, core.Jaxpr | core.ClosedJaxpr)]
    if name in _CALLS and len(inner) == 1:
        jaxpr = inner[0].jaxpr if isinstance(inner[0], core.ClosedJaxpr) else inner[0]
        carried = _carried(equation, jaxpr) if name == "scan" else range(0)
        if len(jaxpr.invars) == len(equation.invars) and position not in carried:
            found = _reads(jaxpr, position)
            # What a scan carries on, its first results, is read in its next round.
            if not any(result < len(carried) for result in found.results):
                return found
    return Reads(frozenset((jnp.dtype(equation.invars[position].aval.dtype),)), frozenset())


def _carried(scan: Any, body: Any) -> range:
    """Returns the positions of the arguments that a scan carries from one round to the next.

    Its arguments are constants, those carried, and those that have a slice for each round; its results are those
    carried, and stacks. jax names their numbers in each version in another way, but a slice has one axis less.
    """
    sliced, stacked = (
        sum(outer.aval.ndim != inner.aval.ndim for outer, inner in zip(of_scan, of_body, strict=True))
        for of_scan, of_body in ((scan.invars, body.invars), (scan.outvars, body.outvars))
    )
    end = len(scan.invars) - sliced
    return range(end - (len(scan.outvars) - stacked), end)


def _positions(variables: Iterable[Any], among: set[Any]) -> Iterable[int]:
    return (n for n, each in enumerate(variables) if not isinstance(each, core.Literal) and each in among)
