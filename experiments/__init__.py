"""What people run: searches, benchmarks, reports, transfer, derivation and the command line."""
