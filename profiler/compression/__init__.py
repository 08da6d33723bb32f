"""The compression lab: what pruning, quantization, sparsity, coding and distillation give, measured on models with something to lose.

An `Experiment` (a model of the lab, techniques in order, a seed) -> a `Result`: bytes held, resident and on disk, time and quality, each
beside the same of the untouched model. `registry`, `experiment`, `result`, `sparse_formats`, `promises` and `target` load no torch, so
pages read them; `measure` and the techniques do, in a worker that `profiler.jobs.experiments` starts.
"""
