"""Accelerators that are not here: their rates, their compilers, and what those compilers made."""
