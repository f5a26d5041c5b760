"""Across-task neural architecture search, distributed on Ray."""
