"""Algorithms of TorchRL as agents."""
