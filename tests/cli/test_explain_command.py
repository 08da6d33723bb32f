"""The command that explains out-of-memory messages."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.conftest import Run, is_refused
from tests.formats.snapshots import MIB

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
        ((), "required"),
        (("a.log", "--text", MESSAGE), "not allowed with"),
    ],
)
def test_a_text_that_cannot_be_explained_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("explain", *arguments)

    assert is_refused(result)
    assert says in result.err


def test_a_snapshot_is_no_text_and_says_what_reads_it(run: Run, training: Path) -> None:
    assert "`replay`" in run("explain", training).err
