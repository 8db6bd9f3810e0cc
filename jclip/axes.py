"""Names of the mesh's axes, see `jclip.parallel.mesh.MeshShape`."""

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
BATCH_AXES = (DATA, FSDP)
"""Axes that split a batch."""
