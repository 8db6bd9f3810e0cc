"""Memory of a compiled program."""

from typing import Any


def program_bytes(analysis: Any) -> int:
    """Returns the bytes that a compiled program needs on a device: arguments, results and temporaries.

    Args:
      analysis: result of the program's `memory_analysis()`.
    """
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(analysis.argument_size_in_bytes + results + analysis.temp_size_in_bytes)
