"""What `benchmarks/faults.py` does to runs, tables, stores and image folders, one module per part of the project."""
