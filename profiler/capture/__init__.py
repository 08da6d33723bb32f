"""A run of real code -> a measured recording: the engine, the labels, the samplers."""
