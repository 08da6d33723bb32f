"""What engines see while a workload runs, and its way into a recording's tables."""
