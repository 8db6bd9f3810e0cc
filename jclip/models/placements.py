"""Tables of placements: the sharding of a tower's parameters.

Layers follow Megatron's tensor parallelism (Shoeybi et al. 2019, section 3). The first matrices (query, key, value,
fc1) are split over "tensor" along their outputs, so that a device has whole heads and hidden units. The last matrices
(output, fc2) are split along their inputs, so that devices only sum partial results: once after the attention and once
after the MLP. "fsdp" splits the other dimension, which is gathered for each layer. Layers are stacked, (layers, in,
out). The first axis is never split, because a scan takes one layer after another. Norms and biases are a thousandth of
the parameters. "fsdp" does not split them, because each would be gathered in each layer.
"""

from jclip.axes import TENSOR

Placement = str
"""Placement of a parameter. "copy" replicates it. "fsdp" splits it over that mesh axis along the largest dimension that
the axis divides; "fsdp+tensor" over two axes. "-,fsdp,tensor" names the axes of each dimension, with "-" for none.

If an axis does not divide a dimension, the parameter is replicated over that axis, and `jclip.parallel.replication`
reports the cost."""

Placements = tuple[tuple[str, Placement], ...]
"""Ordered (path regex, placement); the paths are those inside a tower."""

# In "tensor+fsdp" tensor comes first, so that after gathering over fsdp each device has its part for tensor.
LAYERS: Placements = (
    (r"layers/attention/(query|key|value)/kernel", "-,fsdp,tensor"),
    (r"layers/attention/(query|key|value)/bias", "-,tensor"),
    (r"layers/attention/output/kernel", "-,tensor,fsdp"),
    (r"layers/mlp/fc1/kernel", "-,fsdp,tensor"),
    (r"layers/mlp/fc1/bias", "-,tensor"),
    (r"layers/mlp/fc2/kernel", "-,tensor,fsdp"),
    (r"layers/.*", "copy"),  # norms, and the biases that are added to a sum
)
EMBEDDINGS: Placements = ((r"[^/]*embedding", "tensor+fsdp"),)
"""XLM-R's embedding is split along the width, because no useful number divides its 250002 rows."""
ENDS: Placements = ((r"projection/kernel", "fsdp,tensor"), (r".*", "copy"))


def with_whole_heads(table: Placements, heads: int, tensor: int) -> Placements:
    """Returns the table, without "tensor" for the attention if that would split a head."""

    def without_tensor(placement: Placement) -> Placement:
        dimensions = [[axis for axis in part.split("+") if axis != TENSOR] for part in placement.split(",")]
        return ",".join("+".join(axes) or "-" for axes in dimensions)

    if heads % tensor == 0:
        return table
    return tuple((path, without_tensor(placement) if "attention/" in path else placement) for path, placement in table)
