"""The catalogue: its names, and that its numbers cannot be typing errors."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.devices import GPUS, Gpu, find_gpu
from profiler.errors import SpecError
from profiler.units import GIB, MIB

SOLD = {
    8: "rtx-3070 rtx-4060 rtx-4060-ti",
    10: "rtx-3080",
    12: "rtx-3060 rtx-4070",
    16: "rtx-a4000 v100-16gb t4 rtx-4080 rtx-5080",
    24: "rtx-3090 rtx-a5000 a10 a10g a30 rtx-4090 l4",
    32: "v100-32gb rtx-5090",
    40: "a100-40gb",
    48: "rtx-a6000 a40 rtx-6000-ada l40 l40s",
    80: "a100-80gb a100-80gb-pcie h100-80gb h100-pcie",
    94: "h100-nvl",
    96: "rtx-pro-6000",
    141: "h200",
    180: "b200",
}
SOLD_GB = {name: size for size, names in SOLD.items() for name in names.split()}
CAPABILITIES = {
    "volta": {(7, 0)},
    "turing": {(7, 5)},
    "ampere": {(8, 0), (8, 6)},
    "ada": {(8, 9)},
    "hopper": {(9, 0)},
    "blackwell": {(10, 0), (12, 0)},
}
every_gpu = pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))


def test_every_gpu_is_one_whose_size_is_known_here() -> None:
    assert set(GPUS) == set(SOLD_GB)


@every_gpu
def test_the_driver_reports_a_little_less_or_more_than_what_is_sold(gpu: Gpu) -> None:
    # A GB on the box is mostly a GiB, of which the driver keeps a part; error correction takes a sixteenth of GDDR6.
    assert 0.90 * SOLD_GB[gpu.name] * GIB < gpu.memory_bytes < SOLD_GB[gpu.name] * GIB
    assert gpu.memory_bytes % MIB == 0
    assert gpu.memory_source
    assert gpu.source.startswith("https://")


@every_gpu
def test_the_architecture_has_this_compute_capability(gpu: Gpu) -> None:
    assert gpu.compute_capability in CAPABILITIES[gpu.architecture]


@every_gpu
def test_rates_double_with_each_halving_of_the_dtype(gpu: Gpu) -> None:
    """Whitepapers count an FMA per tensor core, half as many for the next wider dtype; a sparse rate among dense ones would stand out."""
    rates = gpu.dense_flops_per_s
    assert rates["float16"] == rates.get("bfloat16", rates["float16"])
    assert ("bfloat16" in rates) == ("tf32" in rates) == (gpu.compute_capability >= (8, 0))
    assert ("float8" in rates) == (gpu.compute_capability >= (8, 9))
    if "tf32" in rates:
        assert rates["float16"] / rates["tf32"] == pytest.approx(2, rel=0.03)
    if "float8" in rates:
        assert rates["float8"] / rates["float16"] == pytest.approx(2, rel=0.02)
    assert 1.95 <= rates["float16"] / rates["float32"] <= 30
    assert 2e11 < gpu.bandwidth_bytes_per_s <= 8e12


def test_the_numbers_of_the_rtx_4090_are_those_of_the_whitepaper() -> None:
    gpu = GPUS["rtx-4090"]
    assert gpu.peak_flops_per_s("float32") == pytest.approx(82.6e12)
    assert gpu.peak_flops_per_s("bfloat16") == pytest.approx(165.2e12)
    assert gpu.peak_flops_per_s("float8_e4m3fn") == pytest.approx(330.3e12)
    assert gpu.bandwidth_bytes_per_s == pytest.approx(1008e9)


def test_float32_runs_as_tf32_only_where_it_is_allowed_and_there_is_tf32() -> None:
    assert GPUS["a100-80gb"].peak_flops_per_s("float32", allow_tf32=True) == pytest.approx(156e12)
    assert GPUS["a100-80gb"].peak_flops_per_s("float32") == pytest.approx(19.5e12)
    assert GPUS["t4"].peak_flops_per_s("float32", allow_tf32=True) == GPUS["t4"].peak_flops_per_s("float32")


def test_a_dtype_without_tensor_cores_runs_at_the_rate_of_float32() -> None:
    assert GPUS["t4"].peak_flops_per_s("bfloat16") == pytest.approx(8.1e12)


@every_gpu
def test_each_gpu_is_found_by_all_its_names_in_any_case(gpu: Gpu) -> None:
    for name in (gpu.name, gpu.label, *gpu.device_names):
        assert find_gpu(name) is find_gpu(name.upper()) is find_gpu(f"  {name.lower()} ") is gpu


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("RTX 4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("A6000", "rtx-a6000"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("Tesla T4 (sm_75, 14912 MiB)", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
    ],
)
def test_names_as_people_and_torch_write_them_are_known(name: str, found: str) -> None:
    assert find_gpu(name).name == found


def test_a_name_that_several_variants_share_is_refused_with_all_of_them() -> None:
    with pytest.raises(SpecError, match=r"'H100' names more than one GPU\. Write h100-80gb, h100-pcie or h100-nvl\."):
        find_gpu("H100")


@pytest.mark.parametrize(
    ("name", "nearest"), [("rtx-4091", "rtx-4090"), ("NVIDIA GeForce RTX 3080 Laptop GPU", "rtx-3080"), ("h20", "h200")]
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(SpecError, match=f"Did you mean '{nearest}'"):
        find_gpu(name)


@given(st.text(max_size=200))
def test_any_other_text_is_refused_and_not_a_crash(name: str) -> None:
    try:
        assert find_gpu(name).name in GPUS
    except SpecError as error:
        assert "GPU" in str(error)


def test_a_gpu_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPUS["t4"].name = "t5"  # type: ignore[misc]
