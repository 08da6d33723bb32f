"""How a model of the lab trains: the facts that `profiler.compression.measure_training` finds. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """What an optimizer keeps after one step."""

    name: str
    state_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A step of one batch, shared out among processes that add up their gradients."""

    num_workers: int
    seconds: float
    """Of the clock, the median of the rounds."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What was measured of training."""

    parameter_bytes: int
    states: tuple[OptimizerState, ...]
    times: tuple[StepTime, ...]
    num_cores: int
    """Of the machine."""

    def state_bytes(self, name: str) -> int:
        """Return the bytes of an optimizer's state."""
        return next(state.state_bytes for state in self.states if state.name == name)

    def speed_up(self, num_workers: int) -> float:
        """Return how much faster a step is than in one process."""
        seconds = {time.num_workers: time.seconds for time in self.times}
        return seconds[1] / seconds[num_workers]
