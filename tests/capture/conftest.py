"""Fixtures of the capture tests."""

from tests.capture.nvml_stub import run_with_stub, stub_folder

__all__ = ["run_with_stub", "stub_folder"]
