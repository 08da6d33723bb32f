"""What runs can run on: this machine, and the GPUs that exist."""

from __future__ import annotations

from profiler.devices.gpus import GPUS, Gpu, find_gpu
from profiler.devices.machine import Machine, cpu_name, this_machine
from profiler.devices.outside import Measurement, OutsideBand, context_band

__all__ = ["GPUS", "Gpu", "Machine", "Measurement", "OutsideBand", "context_band", "cpu_name", "find_gpu", "this_machine"]
