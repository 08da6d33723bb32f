"""Runs recorded on real GPUs, simulated again and compared byte for byte."""
