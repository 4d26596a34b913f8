"""Settings of all tests."""

import os

# Tests run in as many processes as there are cores; threads of their own would only get in each other's way.
os.environ["OMP_NUM_THREADS"] = "1"
