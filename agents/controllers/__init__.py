"""Policies over a search space, as networks."""
