"""Compute awareness for mechanistic interpretability: detect, estimate, recommend, and know when to ask."""
