"""The command that explains out-of-memory messages."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Import, Run, is_refused
from tests.formats import snapshots
from tests.formats.snapshots import MIB, History, write

MESSAGE = """
  File "/data/ada/secret/train.py", line 3
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 501.00 MiB. GPU 0 has a total capacity of 23.69 GiB of which 210.00 MiB is \
free. Including non-PyTorch memory, this process has 23.40 GiB memory in use. Of the allocated memory 21.00 GiB is allocated by PyTorch, \
and 2.00 GiB is reserved by PyTorch but unallocated."""


def test_a_message_is_explained_as_markdown_without_whose_it_is(run: Run) -> None:
    result = run("explain", "--text", MESSAGE, "--hide", "train")

    assert result.code == 0
    assert "501 MiB" in result.out
    assert "expandable_segments:True" in result.out
    for private in ("ada", "secret", "/data", "train.py"):
        assert private not in result.out


def test_a_log_file_is_explained_by_its_end(run: Run, here: Path) -> None:
    (here / "log.txt").write_text("step 1\n" * 100_000 + MESSAGE, encoding="utf-8")

    facts = run("explain", "log.txt", "--json").json["facts"]

    assert facts["requested_bytes"] == 501 * MIB
    assert facts["unallocated_bytes"] == 2 * 1024 * MIB


def test_a_piped_message_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(MESSAGE))

    assert run("explain", "-", "--json").json["facts"]["requested_bytes"] == 501 * MIB


def test_the_model_names_the_tensor_of_the_requested_size(run: Run) -> None:
    # 4 x 1,024 x 50,257 logits in bfloat16 are 392.6 MiB, which the driver is asked for as 394 MiB.
    text = MESSAGE.replace("501.00 MiB", "394.00 MiB")

    result = run("explain", "--text", text, "--model", "gpt2", "--batch", "4", "--seq", "1024", "--json").json

    assert any("logits" in name and "4 x 1,024 x 50,257" in name for name in result["tensors"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--text", "all is well"), "no out-of-memory message"),
        (("missing.log",), "No such file"),
        (("--text", MESSAGE, "--model", "gtp2"), "Did you mean 'gpt2'"),
        (("--text", MESSAGE, "--model", "gpt2", "--batch", "4"), "Give both"),
        ((), "required"),
        (("a.log", "--text", MESSAGE), "not allowed with"),
    ],
)
def test_a_text_that_cannot_be_explained_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("explain", *arguments)

    assert is_refused(result)
    assert says in result.err


def with_error(requested_bytes: int = 30 * MIB) -> dict[str, Any]:
    """`snapshots.training`, and then a request that fails: of its 20 MiB 8 are held, 8 and 4 are free, and the driver has 5 left."""
    data = snapshots.training()
    failed = History().add("oom", 0, requested_bytes, snapshots.FORWARD, device_free=5 * MIB).events[0]
    del failed["addr"]
    data["device_traces"][0].append({**failed, "time_us": data["device_traces"][0][-1]["time_us"] + 1})
    return data


def test_a_snapshot_says_what_failed_and_who_held_the_memory(run: Run, here: Path) -> None:
    out = run("explain", write(here / "failed.pickle", with_error()), "--hide", "model.py").out

    assert out.startswith(
        "**30.0 MiB could not be had on GPU 0: tensors held 8.00 MiB of 20.0 MiB that PyTorch had reserved, "
        "and the driver had 5.00 MiB left.**"
    )
    assert "| Parameter | 4.00 MiB |" in out
    assert "_apply | 4.00 MiB |" in out
    assert "the largest free block that could be used was 8.00 MiB." in out
    assert "12.0 MiB were free but in pieces smaller than the request" in out
    assert "\n.../<name>:7:forward\n" in out, "the call stack of the request"
    assert "/job" not in out
    assert "model.py" not in out


@pytest.mark.parametrize("name", ["failed.pickle", "failed.log", "failed.pickle.gz"])
def test_a_recording_a_snapshot_and_any_name_of_it_are_explained_alike(run: Run, here: Path, imported: Import, name: str) -> None:
    path = write(here / name, with_error())
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))

    from_file, from_recording = run("explain", path, "--json").json, run("explain", imported(with_error()), "--json").json

    assert from_file == from_recording
    assert from_file["facts"]["requested_bytes"] == 30 * MIB
    assert from_file["alive"]["Alive by category"] == {"Parameter": 4 * MIB, "Optimizer state": 4 * MIB}


def test_the_model_names_the_tensor_that_a_recording_asked_for(run: Run, imported: Import) -> None:
    # 4 x 1,024 x 50,257 numbers of 2 bytes are 411,705,344, a multiple of 512.
    path = imported(with_error(4 * 1024 * 50_257 * 2))

    result = run("explain", path, "--model", "gpt2", "--batch", "4", "--seq", "1024", "--json").json

    assert result["tensors"] == ["bfloat16 or float16 logits, 4 x 1,024 x 50,257"]
    assert "fused linear cross-entropy" in result["suggestions"][0]


def test_a_recording_without_an_error_says_so_and_describes_its_peak(run: Run, recorded_training: Path) -> None:
    result = run("explain", recorded_training, "--json").json

    assert result["verdict"].startswith("No out-of-memory error was recorded")
    assert "The peak, 16.0 MiB, is" in result["explanation"][0]
    assert sum(result["alive"]["Alive by category"].values()) == 16 * MIB
    assert sum(result["alive"]["Alive by module or call stack"].values()) == 16 * MIB
    assert "<details>" not in result["markdown"], "there is no request to quote"


def test_a_file_that_is_neither_text_nor_a_recording_is_refused(run: Run, here: Path) -> None:
    (here / "noise.bin").write_bytes(b"\0\1\2" * 100)

    assert is_refused(run("explain", "noise.bin"))
