"""Figures of a model: retrieval, baselines, and the page that shows them."""
