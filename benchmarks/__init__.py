"""Timings against other libraries, on this machine: `python -m benchmarks NAME`. Not part of the package."""
