"""Runs a workload on fake tensors: its memory on a named GPU or on a CPU, event by event, without its hardware."""
