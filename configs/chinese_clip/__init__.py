"""Chinese-CLIP's recipes at full size."""
