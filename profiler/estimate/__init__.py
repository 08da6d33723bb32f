"""Closed formulas: bytes from sizes alone, each with its source, its validity and its known error."""
