"""FLOPs of the matmuls and convolutions of optimised HLO, including those of library calls."""

from collections.abc import Mapping, Sequence
from math import gcd, prod
from typing import Any

from jclip.accelerators.hlo_text import Array, Computation, Instruction, leaves

_FUSED_ATTENTION = {
    "__cudnn$fmhaSoftmax": 2,
    "__cudnn$fmhaScaleBiasSoftmax": 2,
    "__cudnn$fmhaSoftmaxDropout": 2,
    "__cudnn$fmhaScaleBiasSoftmaxDropout": 2,
    "__cudnn$fmhaSoftmaxBackward": 5,
    "__cudnn$fmhaScaleBiasSoftmaxBackward": 5,
    "__cudnn$fmhaSoftmaxDropoutBackward": 5,
    "__cudnn$fmhaScaleBiasSoftmaxDropoutBackward": 5,
}
"""Number of matmuls of cuDNN's attention. The backward pass has four, and recomputes the logits."""
_GEMM = ("__cublas$gemm", "__cublas$lt$matmul", "__cublas$lt$groupedMatmul", "__cutlass$gemm")
_CONVOLUTION = "__cudnn$conv"
_NO_PRODUCTS = frozenset(
    {
        "AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "AsyncCollectiveStart", "AsyncCollectiveDone",
        "Sharding", "annotate_device_placement", "TopK", "PartialReduce", "GatherScatterIndicesBitpacked",
    }
)  # fmt: skip
"""Custom calls that multiply nothing."""


def count_products(instruction: Instruction, computation: Computation) -> int | None:
    """Returns the FLOPs of one instruction's own products, without those of computations that it calls.

    Returns None for a custom call whose products are not known.
    """
    if instruction.opcode == "dot":
        return _dot(
            instruction.array, _operand(computation, instruction, 0), _axes(instruction, "lhs_contracting_dims")
        )
    if instruction.opcode == "convolution":
        image, kernel = (_operand(computation, instruction, number) for number in (0, 1))
        return _convolution(instruction.attributes, image, kernel, instruction.array)
    if instruction.base == "custom-call":
        return _library_call(instruction, computation)
    return 0


def target_of(instruction: Instruction) -> str:
    """Returns the name of the library function of a custom call."""
    return instruction.attributes.get("custom_call_target", "").strip('"')


def _library_call(instruction: Instruction, computation: Computation) -> int | None:
    target, config = target_of(instruction), instruction.config
    if target in _NO_PRODUCTS:
        return 0
    if target.startswith(_GEMM):
        numbers = _mapping(config.get("gemm_backend_config")).get("dot_dimension_numbers")
        contracted = [int(axis) for axis in _mapping(numbers).get("lhs_contracting_dimensions", ())]
        return _dot(instruction.array, _operand(computation, instruction, 0), contracted)
    if target.startswith(_CONVOLUTION):
        first, second = (_operand(computation, instruction, number) for number in (0, 1))
        result = instruction.array
        if "BackwardInput" in target:
            return _convolution(instruction.attributes, result, second, first)
        if "BackwardFilter" in target:
            return _convolution(instruction.attributes, first, result, second)
        return _convolution(instruction.attributes, first, second, result)
    if target in _FUSED_ATTENTION:
        logits = _mapping(_mapping(config.get("cudnn_fmha_backend_config")).get("intermediate_tensor_shape"))
        sizes = [int(size) for size in logits.get("dimensions", ())]
        channels = _operand(computation, instruction, 0).dims[-1]
        return _FUSED_ATTENTION[target] * 2 * prod(sizes) * channels if sizes else None
    cost = _mapping(_mapping(config.get("custom_call_config")).get("cost_estimate"))
    return int(cost["flops"]) if "flops" in cost else None


def _dot(result: Array, left: Array, contracted: Sequence[int]) -> int:
    return 2 * result.elements * prod(left.dims[axis] for axis in contracted)


def _convolution(attributes: Mapping[str, str], image: Array, kernel: Array, result: Array) -> int:
    """Counts the FLOPs of products of two elements, without those with padding or with the gaps of a dilation.

    The distinction matters because TPU's compiler writes batched matmuls as convolutions with dilated inputs.
    """
    labels = attributes["dim_labels"]
    image_axes, _, rest = labels.partition("_")
    kernel_axes, _, result_axes = rest.partition("->")
    window = _window(attributes.get("window", ""))
    per_output = image.dims[image_axes.index("f")] // int(attributes.get("feature_group_count", "1"))
    batch = image.dims[image_axes.index("b")] // int(attributes.get("batch_group_count", "1"))
    pairs = prod(
        _valid_pairs(
            image.dims[image_axes.index(axis)],
            kernel.dims[kernel_axes.index(axis)],
            result.dims[result_axes.index(axis)],
            {name: values[int(axis)] for name, values in window.items()},
        )
        for axis in kernel_axes
        if axis.isdigit()
    )
    return 2 * per_output * batch * result.dims[result_axes.index("f")] * pairs


def _valid_pairs(size: int, kernel: int, outputs: int, window: Mapping[str, str]) -> int:
    """Counts pairs of a position in the output and one in the kernel that meet an element of the input."""
    stride, left, right = (int(window.get(key, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate"))
    before = int(window.get("pad", "0_0").partition("_")[0])
    common = gcd(stride, left)
    period = left // common  # one of `period` outputs meets an element of a dilated input; the others meet a gap
    inverse = pow(stride // common, -1, period)
    pairs = 0
    for offset in range(-before, kernel * right - before, right):
        if offset % common == 0:
            first, last = max(0, -(offset // stride)), min(outputs - 1, ((size - 1) * left - offset) // stride)
            meeting = (-offset // common * inverse) % period
            first += (meeting - first) % period
            pairs += max(0, (last - first) // period + 1)
    return pairs


def _window(text: str) -> dict[str, list[str]]:
    """Returns the values of each dimension, as text: "{size=2x3 pad=0_0x1_1}" gives {"size": ["2", "3"], …}."""
    pairs = (part.partition("=") for part in text.strip("{}").split())
    return {name: value.split("x") for name, _, value in pairs}


def _axes(instruction: Instruction, name: str) -> list[int]:
    return [int(axis) for axis in instruction.attributes.get(name, "{}").strip("{}").split(",") if axis]


def _operand(computation: Computation, instruction: Instruction, number: int) -> Array:
    return leaves(computation.operand(instruction, number).shape)[0]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
