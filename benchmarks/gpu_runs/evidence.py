"""Comparisons -> the table of runs that every simulated result is held beside (`profiler.planner.validated`)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from benchmarks.gpu_runs.schema import Comparison, Run, gpu_of, model_type
from profiler.planner.validated import TABLE, traits_of
from profiler.spec import Job

_PRECISIONS = {"pure_bf16": "bfloat16", "bf16": "bfloat16", "amp_bf16_fp32_weights": "amp", "fp16": "float16", "fp32": "float32"}
_WORKLOADS = {"inference_prefill": "prefill", "train": "train"}


def write(comparisons: list[Comparison], source: str) -> None:
    """Replace the table's rows of a source by those of its comparisons."""
    kept = [row for row in json.loads(TABLE.read_text(encoding="utf-8")) if row["source"] != source] if TABLE.exists() else []
    rows = kept + [_row(comparison, source) for comparison in comparisons if comparison.run["gpu"] != "cpu"]
    TABLE.write_text(json.dumps(sorted(rows, key=lambda row: str(row["id"])), indent=1) + "\n", encoding="utf-8")


def _row(comparison: Comparison, source: str) -> dict[str, Any]:
    return {
        "id": comparison.run["id"],
        "source": source,
        "traits": _traits(comparison.run),
        "differences": comparison.differences,
        "measured_bytes": max(comparison.measured.values()),
    }


def _traits(run: Run) -> dict[str, str]:
    gpu = gpu_of(run)
    if "job" in run:
        return traits_of(replace(Job.from_json(run["job"]), device=gpu.name), gpu.architecture, run["versions"])
    name = run["model"].rpartition("/")[2]
    return {
        "model": name,
        "model_type": model_type(name),
        "gpu": gpu.name,
        "architecture": gpu.architecture,
        "workload": _WORKLOADS[run["workload"]],
        "shape": f"{run['batch']} x {run['seq_len']}",
        "precision": _PRECISIONS[run.get("precision") or run["weights_dtype"]],
        "attention": "eager" if run["attention"] == "eager" else "sdpa",
        "optimizer": (run["optimizer"] or "none").partition(" ")[0].lower(),
        "checkpointing": "yes" if run["activation_checkpointing"] else "no",
        "lora": "yes" if run["lora_rank"] else "no",
        "quantization": run.get("quantization", "none"),
        "torch": _short(run["versions"]["torch"]),
        "transformers": _short(run["versions"]["transformers"]),
    }


def _short(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])
