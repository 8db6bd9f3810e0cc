"""Accelerators that are not attached: their figures, their compilers, and the reading of what these compile."""
