"""Experiment scripts and notebooks, read without being run: which workloads are in them, at which lines."""
