"""Experiments: specification, plan, execution, run directory and tables."""
