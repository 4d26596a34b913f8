"""Differentiable search: agents that train a relaxed network, and descend the gradient of its mixture."""
