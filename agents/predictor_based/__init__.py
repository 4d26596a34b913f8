"""Agents that choose by a predictor of what architectures are worth."""
