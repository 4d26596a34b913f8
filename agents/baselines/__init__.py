"""Agents without a model: what every other agent has to beat."""
