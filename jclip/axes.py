"""Names of the mesh's axes."""

DATA = "data"
"""The batch is split; parameters are copied."""
FSDP = "fsdp"
"""The batch and the parameters are split."""
TENSOR = "tensor"
"""Parameters are split; the batch is copied."""
BATCH_AXES = (DATA, FSDP)
"""Axes over which a batch is split."""
