"""Agents that train a controller by the policy gradient."""
