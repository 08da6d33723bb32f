"""A recording -> what it means: timeline, peak, who owns it, in numbers and sentences. Nothing here draws."""
