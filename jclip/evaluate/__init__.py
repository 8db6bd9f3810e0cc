"""Figures of a model: retrieval, classification, probes, baselines; and the pages that show them."""
