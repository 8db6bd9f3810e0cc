"""Weights in and out: checkpoints of PyTorch as bundles, and back."""
