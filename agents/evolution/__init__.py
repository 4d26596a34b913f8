"""Agents that keep a population of architectures and breed it."""
