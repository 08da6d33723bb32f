"""The techniques of the lab as data, one file a kind. Loads no torch."""
