"""Runs Python code in a process whose libnvidia-ml is the stub of nvml_stub.c, as pynvml would load the driver's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

RunWithStub = Callable[..., Any]


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no C compiler, so the NVML stub cannot be built; install gcc there")
        pytest.skip("the NVML stub needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_suffix(".c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source], check=True)
    return folder


@pytest.fixture
def run_with_stub(stub_folder: Path) -> RunWithStub:
    """Return a function: ``code`` leaves its result in a variable ``result``; keywords become the stub's settings."""

    def run(code: str, **settings: object) -> Any:
        return run_python(code, LD_LIBRARY_PATH=str(stub_folder), **settings)

    return run


def run_python(code: str, **environment: object) -> Any:
    inherited = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\nimport json; print(json.dumps(result))"],
        env={**inherited, **{name: str(value) for name, value in environment.items()}},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)
