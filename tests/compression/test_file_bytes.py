"""What each technique leaves on disk, counted by hand: numbers, and of coders the bits of their codes.

A plain file is a zip of torch's with one entry a storage, so that what it holds can be told from the container.
"""

from __future__ import annotations

import ast
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from profiler.compression.base import Kind
from profiler.compression.entropy import MAGIC
from profiler.compression.registry import TECHNIQUES
from profiler.compression.subject import Subject
from tests.compression.tasks import TinyTask
from tests.compression.test_held_bytes import BY_HAND, NUM_MATRICES, NUMBERS, REST, ROTARY, subject_after


def last_of(stages: str) -> str:
    """Return the name of the technique that comes last."""
    return stages.rpartition(" + ")[2].partition(":")[0]


PLAIN = {stages: held for stages, held in BY_HAND.items() if TECHNIQUES[last_of(stages)].kind is not Kind.CODING}
"""Held bytes of what is written as torch writes it."""
_LAYERS = NUM_MATRICES + 1
_CONTAINER_BYTES = 450
"""At most so many for each storage: its name, its place at a multiple of 64, and the pickle that says what it is of."""

NOT_IN_FILE: Mapping[str, int] = {
    "bfloat16": ROTARY // 2,
    "float16": ROTARY // 2,
    "int4-weight-only": ROTARY // 2,
    "distill:steps=1": 2 * 4 * 8,
    "nf4": ROTARY + NUM_MATRICES * 64,  # the levels are constants
    "dynamic-int8": ROTARY + _LAYERS * (16 - 12),  # scale and zero point of the weight; of the output in their place, in 4 and 8 bytes
    "dynamic-float16": ROTARY - _LAYERS * 12,
    "static-int8:batches=1": 0,
}
"""Bytes held that a file leaves out; of the others the rotary embedding's frequencies, which are computed when the model is built."""

ORACLES: dict[str, str] = {
    "fixed": "test_packed_indices_take_half_a_byte_a_weight_and_the_rest_stays_as_it_was",
    "huffman": "test_a_matrix_of_a_known_distribution_takes_the_bits_of_its_codes",
    "ans": "test_a_matrix_of_a_known_distribution_takes_the_bits_of_its_codes",
    "zstd": "test_noise_is_written_as_it_is_and_one_number_over_and_over_as_next_to_nothing",
}
"""Of those that write a file of their own: the test here that counts it."""


@pytest.mark.parametrize(("stages", "held"), PLAIN.items(), ids=PLAIN)
def test_a_plain_file_has_the_bytes_of_a_hand_count_and_little_beside_them(stages: str, held: int, tmp_path: Path) -> None:
    sizes = storages_of(written(subject_after(stages, tmp_path)))

    assert sum(sizes) == held - NOT_IN_FILE.get(stages, ROTARY)
    assert 0 < (tmp_path / "file").stat().st_size - sum(sizes) < _CONTAINER_BYTES * len(sizes)


def test_packed_indices_take_half_a_byte_a_weight_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    subject = subject_after("k-means:bits=4 + fixed", tmp_path)

    size, _ = coded(written(subject))

    books = NUM_MATRICES * 16 * 4
    assert {len(book) for book in subject.codebooks.values()} == {16}
    assert size == NUMBERS // 2 + books + NUM_MATRICES + REST  # a byte a matrix says how many bits


@pytest.mark.parametrize(
    ("technique", "words"),
    [
        ("huffman", {math.ceil((45 * 1 + 13 * 3 + 12 * 3 + 16 * 3 + 9 * 4 + 5 * 4) / 32)}),
        ("ans", {math.ceil(221.988 / 32), math.ceil(221.988 / 32) + 1}),  # the coder's state takes a word at most
    ],
)
def test_a_matrix_of_a_known_distribution_takes_the_bits_of_its_codes(technique: str, words: set[int], tmp_path: Path) -> None:
    counts = (45, 13, 12, 16, 9, 5)  # Cormen et al., Introduction to Algorithms, section 16.3: codes of 1, 3, 3, 3, 4 and 4 bits
    book = torch.tensor([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0])
    numbers = book.repeat_interleave(torch.tensor(counts))[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    assert sum(count * math.log2(100 / count) for count in counts) == pytest.approx(221.988, abs=1e-3)

    size, header = coded(written(of_one_matrix(numbers.view(10, 10), technique, tmp_path, book)))

    (entry,) = header["tensors"]
    table = 1 + 2 * 6
    assert entry["coders"] == [technique]
    assert (size - 6 * 4 - table) / 4 in words


def test_noise_is_written_as_it_is_and_one_number_over_and_over_as_next_to_nothing(tmp_path: Path) -> None:
    noise = torch.randint(-(2**15), 2**15, (64, 64), dtype=torch.int16, generator=torch.Generator().manual_seed(0))

    rough, header = coded(written(of_one_matrix(noise, "zstd", tmp_path)))
    smooth, _ = coded(written(of_one_matrix(torch.ones(64, 64), "zstd", tmp_path)))

    assert header["tensors"][0]["coders"] == ["raw"]
    assert rough == 2 * 64 * 64
    assert smooth < 32  # a frame's header, one repeated number, one sequence


def test_every_technique_has_its_file_counted_by_hand() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))

    assert {last_of(stages) for stages in PLAIN} | ORACLES.keys() == set(TECHNIQUES)
    assert set(ORACLES.values()) <= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def of_one_matrix(weight: torch.Tensor, technique: str, folder: Path, book: torch.Tensor | None = None) -> Subject:
    """Return a subject of nothing but a matrix, with values that it shares where they are given, when a coder was applied."""
    model = nn.Module()
    model.weight = nn.Parameter(weight, requires_grad=False)
    subject = Subject(task=TinyTask(), model=model, folder=folder, codebooks={} if book is None else {"weight": book})
    TECHNIQUES[technique].apply(subject, TECHNIQUES[technique].read_options({}))
    return subject


def written(subject: Subject) -> Path:
    """Write a subject's file into its folder, see that it is exact, and return its path."""
    path = subject.folder / "file"
    subject.file.write(subject.model, path)
    assert subject.file.exact(subject.model, path)
    return path


def storages_of(path: Path) -> list[int]:
    """Return the bytes of each storage in a file of torch.save."""
    with zipfile.ZipFile(path) as file:
        return [entry.file_size for entry in file.infolist() if "/data/" in entry.filename]


def coded(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the bytes of a coded file without its header, and the header."""
    data = path.read_bytes()
    start = len(MAGIC) + 8
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    return len(data) - start - length, json.loads(data[start : start + length])
