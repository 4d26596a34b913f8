"""Benchmarks: every agent on every table, many seeds each."""
