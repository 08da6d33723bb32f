"""The benchmark of published numbers: its table, its exit code, and that every claim in the shared file holds."""

from __future__ import annotations

import json
import math
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.published.__main__ import DEFAULT_FILE, case_names, main
from benchmarks.published.cases.llm_c import activation_bytes
from benchmarks.published.cases.low_bit_optimizers import MakeOptimizer, vit_huge
from benchmarks.published.simulated import Script, peak_allocated_bytes
from benchmarks.published.table import EXACT, PRINTED, TRUNCATED, Printed, Published, Row, Tolerance
from benchmarks.published.vision import VisionTransformer
from profiler.optimizations.torch_optimizers import PagedAdamW8bit


def entry(identity: str, value: Any, confidence: str = "high") -> dict[str, Any]:
    return {"id": identity, "model": "7.5B", "quantity": "states", "unit": "GB (1e9)", "value": value, "confidence": confidence}


def write(path: Path, *entries: dict[str, Any]) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


def test_a_printed_number_knows_its_last_digit_and_a_difference_loses_two() -> None:
    assert Printed.read(Decimal("31.4")) == Printed(31.4, 0.1)
    assert Printed.read(120) == Printed(120.0, 1.0)
    difference = Printed.read(Decimal("5.65")) - Printed.read(Decimal("5.48"))
    assert difference.value == pytest.approx(0.17)
    assert difference.last_digit == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("tolerance", "published", "ours", "allowed"),
    [
        (EXACT, Printed(18_564, 1), 18_564, True),
        (EXACT, Printed(18_564, 1), 18_565, False),
        (PRINTED, Printed(31.4, 0.1), 31.44, True),
        (PRINTED, Printed(31.4, 0.1), 31.46, False),
        (TRUNCATED, Printed(35, 1), 35.999, True),
        (Tolerance(share=0.02), Printed(100, 1), 98, True),
        (Tolerance(share=0.02), Printed(100, 1), 97.9, False),
        (Tolerance(low=500, high=1200), Printed(21_315, 1), 20_464, True),
        (Tolerance(low=500, high=1200), Printed(21_315, 1), 21_315, False),
    ],
)
def test_a_tolerance_is_a_share_or_digits_or_a_band(tolerance: Tolerance, published: Printed, ours: float, allowed: bool) -> None:
    assert tolerance.allows(published, ours) is allowed


def test_llm_c_allocates_its_published_mebibytes() -> None:
    assert activation_bytes(56) // 2**20 == 18_564
    assert activation_bytes(1) // 2**20 == 331


def test_what_agrees_holds_and_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.json", entry("zero-Pos", 31.4), entry("zero-Pos+g+p", 1.9))
    assert main([path]) == 0
    assert "2 rows: 2 hold, 0 fail, 0 wrong as printed; 2 of the file's 2 entries." in capsys.readouterr().out


def test_what_does_not_agree_fails_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.json", entry("zero-Pos", 31.5), entry("zero-Pos+g", 16.6))
    assert main([path, "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["ids"], first["holds"], first["published"], first["ours"]) == (["zero-Pos"], False, 31.5, 31.40625)
    assert first["provenance"] == "estimated"
    assert second["holds"]


def test_a_number_that_its_source_contradicts_is_shown_and_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.json", entry("kv-Llama 3.1 405B-1k", 0.984, confidence="wrong as printed"))
    assert main([path]) == 0
    assert "1 rows: 0 hold, 0 fail, 1 wrong as printed" in capsys.readouterr().out


def test_a_formula_in_the_place_of_a_number_and_unknown_ids_give_no_row(tmp_path: Path) -> None:
    published = Published.read(Path(write(tmp_path / "p.json", entry("zero-Pos", "4*Psi"), entry("other", 1))))
    assert list(published.row("zero-Pos", 1, EXACT)) == []
    assert list(published.row("absent", 1, EXACT)) == []
    assert list(published.difference("other", "absent", "what", 1, EXACT)) == []


def test_only_the_named_case_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "p.json", entry("zero-Pos", 31.4), entry("llmc-acts", 1))
    assert main([path, "--only", "zero"]) == 0
    assert "1 rows" in capsys.readouterr().out


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "absent.json")])
    assert ended.value.code == 2
    assert "absent.json is not there. Name a published.json." in capsys.readouterr().err


ESTIMATED = ["deepspeed", "kv_cache", "llm_c", "lora", "megatron", "optimizers", "weights", "zero"]
SIMULATED = ["bert_large", "inference", "liger", "low_bit_optimizers", "optimizer_in_backward", "peft_methods", "torchtitan"]


def rows_of_the_shared_file(names: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    if not DEFAULT_FILE.is_file():
        reason = "the shared data are not beside this checkout"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    code = main([str(DEFAULT_FILE), "--json", *(word for name in names for word in ("--only", name))])
    return code, json.loads(capsys.readouterr().out)


def test_every_case_is_estimated_or_simulated() -> None:
    assert sorted(ESTIMATED + SIMULATED) == case_names()


def test_every_claim_of_the_shared_file_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = rows_of_the_shared_file(ESTIMATED, capsys)
    assert [row for row in rows if not row["holds"] and not row["wrong_as_printed"]] == []
    assert code == 0
    assert len(rows) > 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_every_simulated_claim_of_the_shared_file_holds(capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = rows_of_the_shared_file(SIMULATED, capsys)
    assert [row for row in rows if not row["holds"]] == []
    assert code == 0
    assert len(rows) > 40
    assert {row["provenance"] for row in rows} == {"simulated"}


def test_an_operator_of_liger_is_simulated_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, width = 4096, 2048
    numbers = 5 * 4 * rows * width  # the input, the result, its gradient, and the input's gradient, kept and new
    parameters = (4 + 4) * 4 * width  # weights and biases of two layers, and one's gradients, kept and new
    statistics = 2 * 4 * rows
    config = {"M": rows, "N": width, "dtype": "torch.float32", "eps": 1e-6, "gpu": "NVIDIA A100-SXM4-80GB"}
    path = write(tmp_path / "p.json", entry("liger-layer_norm-huggingface-full-N2048", 160.09375) | {"config": config})
    assert main([path, "--only", "liger", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["ours"] * 2**20, row["provenance"]) == (numbers + parameters + statistics, "simulated")


def fused_adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


def adamw_8bit_of_2024(parameters: Any) -> torch.optim.Optimizer:
    return PagedAdamW8bit(parameters, block=2048, min_paged_numbers=math.inf)


MATRIX = 26 * 2**20  # 5120 x 1280 numbers of float32 are 25 MiB in a segment of 26, and the rest of 1 MiB is not split off
CODES = 2 * (5120 * 1280 + 4 * 3200)  # two states of a byte a number, and a float32 scale for 2,048


@pytest.mark.parametrize(("make", "states"), [(fused_adamw, 2 * MATRIX + 512), (adamw_8bit_of_2024, CODES + 2 * 1024)])
def test_a_state_weighs_what_its_block_does(make: MakeOptimizer, states: int) -> None:
    def program(device: torch.device) -> Script:
        parameter = torch.nn.Parameter(torch.zeros(5120, 1280).to(device))
        parameter.grad = torch.zeros(5120, 1280).to(device)
        optimizer = make([parameter])
        return Script(optimizer.step, [parameter])

    assert peak_allocated_bytes("rtx-4080", program) == 2 * MATRIX + states


def test_the_peak_of_all_steps_is_not_their_median() -> None:
    def program(device: torch.device) -> Script:
        sizes = iter((1024, 4096, 2048))
        return Script(lambda: torch.zeros(next(sizes) // 4).to(device))

    assert (peak_allocated_bytes("rtx-4080", program), peak_allocated_bytes("rtx-4080", program, of=max)) == (2048, 4096)


def test_the_vision_transformers_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        models = VisionTransformer(), vit_huge()
    assert [sum(map(Tensor.numel, model.parameters())) for model in models] == [304_326_632, 632_045_800 - (1000 - 45) * 1281]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_the_guides_runs_with_8_bit_adam_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {"vanilla-b4": 14949, "adam8bit-b4": 13085, "ga-gc-fp16-b1x4": 7275, "adam8bit-all": 5363}
    entries = [entry(f"hf-bert-{name}", value) | {"unit": "MiB"} for name, value in ({"ctx": 1343} | runs).items()]
    assert main([write(tmp_path / "p.json", *entries), "--only", "bert_large", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["published"] for row in rows) == sorted([*runs.values(), 14949 - 13085, 7275 - 5363])


def test_a_row_shows_its_error_as_a_share_of_the_published() -> None:
    row = Row(ids=("a",), what="w", published=Printed(200, 1), ours=190, unit="MB", tolerance=EXACT)
    assert row.error == -0.05
    assert row.verdict == "FAILS"
