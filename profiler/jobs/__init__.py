"""A Job -> a recording in the run store, made by a worker process that can fail without taking anything else along."""
