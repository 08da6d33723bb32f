"""Published measurements and sizes beside what this project computes: `python -m benchmarks.published`."""
