"""Agents that plan over the tree of decisions, and samplers that learn to reach good leaves of it."""
