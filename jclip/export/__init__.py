"""Writes models for other runtimes: StableHLO and ONNX."""
