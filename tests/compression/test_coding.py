"""Coders and the file they write: exact both ways, as small as the entropy allows, and counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.compression.base import Saves
from profiler.compression.coders import CODERS, Symbols, entropy_bits, pack_bits, unpack_bits, zstd
from profiler.compression.entropy import CodedFile, read_weights
from profiler.compression.files import StateFile
from profiler.compression.held import tensors_of
from profiler.compression.kmeans import codebook_of, nearest
from profiler.compression.registry import TECHNIQUES
from profiler.compression.streams import Layout, byte_streams, index_streams, with_gaps
from tests.compression.tasks import TinyTask
from tests.compression.test_held_bytes import NUM_MATRICES, NUMBERS, subject_after

ALL_CODERS = {**CODERS, "zstd": zstd(3)}
SYMBOLS = st.lists(st.integers(0, 255), max_size=400).map(lambda found: np.array(found, np.uint8))


@pytest.mark.parametrize("name", ALL_CODERS)
@given(symbols=SYMBOLS)
@settings(max_examples=60, deadline=None)
def test_every_coder_gives_the_symbols_back_and_leaves_its_input_alone(name: str, symbols: np.ndarray) -> None:
    coder, before = ALL_CODERS[name], symbols.copy()

    decoded = coder.decode(coder.encode(symbols), len(symbols))

    assert np.array_equal(decoded, before)
    assert np.array_equal(symbols, before)


@pytest.mark.parametrize("name", ["huffman", "ans"])
@pytest.mark.parametrize("symbols", [70_000, 200_000])
def test_long_streams_come_back_too(name: str, symbols: int) -> None:
    stream = np.minimum(np.abs(np.random.default_rng(0).normal(0, 9, symbols)), 255).astype(np.uint8)
    coder = CODERS[name]

    assert np.array_equal(coder.decode(coder.encode(stream), symbols), stream)


def test_huffmans_code_of_a_textbook_example_takes_the_bits_of_the_textbook() -> None:
    counts = [45, 13, 12, 16, 9, 5]  # Cormen et al., Introduction to Algorithms, section 16.3: 1, 3, 3, 3, 4 and 4 bits
    symbols = np.repeat(np.array([3, 4, 7, 8, 9, 11], np.uint8), counts)

    assert _code_bytes("huffman", symbols) == (45 * 1 + 13 * 3 + 12 * 3 + 16 * 3 + 9 * 4 + 5 * 4) / 8


def _code_bytes(coder: str, symbols: Symbols) -> int:
    """Return what a coder takes beside its table: a byte for its length and 2 for each frequency."""
    return len(CODERS[coder].encode(symbols)) - 1 - 2 * (int(symbols.max()) + 1)


def test_shared_weights_save_nothing_until_a_coder_writes_them(tmp_path: Path) -> None:
    sizes = []
    for stages in ("", "k-means:bits=4", "k-means:bits=4 + fixed"):
        subject, path = subject_after(stages, tmp_path), tmp_path / "weights"
        subject.file.write(subject.model, path)
        sizes.append(path.stat().st_size)

    untouched, shared, coded = sizes
    assert TECHNIQUES["k-means"].saves is Saves.NOTHING
    assert shared == pytest.approx(untouched, rel=0.01)
    assert untouched - coded > (4 - 0.5) * NUMBERS - NUM_MATRICES * 1024  # half a byte a weight, and codebooks and headers


@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=256))
@settings(deadline=None)
def test_huffman_is_between_the_entropy_and_a_bit_more(counts: list[int]) -> None:
    symbols = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    words = 8 * _code_bytes("huffman", symbols) / 32

    assert entropy_bits(symbols) <= 32 * words + 1e-6
    assert 32 * (words - 1) < entropy_bits(symbols) + len(symbols)


def test_entropy_of_two_equal_symbols_is_a_bit_each_and_of_one_is_nothing() -> None:
    assert entropy_bits(np.array([3, 9] * 50, np.uint8)) == 100
    assert entropy_bits(np.array([3] * 50, np.uint8)) == 0
    assert entropy_bits(np.array([0, 0, 0, 1], np.uint8)) == pytest.approx(4 * (0.75 * math.log2(4 / 3) + 0.25 * 2))


def test_ans_comes_within_a_hundredth_of_the_entropy_where_huffman_must_spend_a_bit() -> None:
    symbols = (np.random.default_rng(0).random(100_000) < 0.02).astype(np.uint8)
    bound = entropy_bits(symbols) / 8

    assert len(CODERS["ans"].encode(symbols)) < 1.01 * bound
    assert len(CODERS["huffman"].encode(symbols)) > 5 * bound


@given(symbols=SYMBOLS, bits=st.integers(1, 8))
def test_packed_symbols_take_their_bits_and_no_more(symbols: np.ndarray, bits: int) -> None:
    small = symbols & (2**bits - 1)

    packed = pack_bits(small, bits)

    assert len(packed) == -(-len(small) * bits // 8)
    assert np.array_equal(unpack_bits(packed, bits, len(small)), small)


def test_distances_longer_than_a_byte_are_cut_by_zeros_that_are_stored() -> None:
    indices = np.zeros(700, np.uint8)
    indices[[0, 255, 699]] = [5, 6, 7]

    gaps, values = with_gaps(indices, zero=0)

    assert gaps.tolist() == [1, 255, 255, 189]
    assert values.tolist() == [5, 6, 0, 7]


@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.5, 2.25, 7.0]), min_size=1, max_size=900),
)
@settings(deadline=None)
def test_a_matrix_of_shared_weights_comes_back_whichever_way_it_is_cut(values: list[float]) -> None:
    matrix = torch.tensor(values).reshape(1, -1)

    streams = index_streams(matrix, torch.tensor([-1.5, 0.0, 2.25, 7.0]))

    assert torch.equal(streams.tensor(), matrix)


def test_distances_are_used_only_where_they_take_fewer_bits() -> None:
    book = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    sparse, dense = torch.zeros(1, 1000), torch.ones(1, 1000)
    sparse[0, 500] = 1.0

    assert index_streams(sparse, book).layout is Layout.GAPS
    assert index_streams(dense, book).layout is Layout.INDICES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.int64])
@pytest.mark.parametrize("planes", [True, False])
def test_bytes_of_every_format_come_back(dtype: torch.dtype, planes: bool) -> None:
    tensor = torch.randn(3, 5).mul(100).to(dtype)

    assert torch.equal(byte_streams(tensor, planes=planes).tensor(), tensor)


def test_k_means_of_clusters_that_are_plain_to_see_are_their_means() -> None:
    weight = torch.tensor([0.0, 0.2, 9.9, 10.0, 10.1, -5.0])

    book = codebook_of(weight, 3)

    assert book.tolist() == pytest.approx([-5.0, 0.1, 10.0])
    assert nearest(weight, book).tolist() == [1, 1, 2, 2, 2, 0]


def test_what_was_pruned_stays_zero_when_weights_are_shared(tmp_path: Path) -> None:
    subject = subject_after("prune-global:amount=0.7 + k-means:bits=3", tmp_path)
    parameters = dict(subject.model.named_parameters())

    for name, mask in subject.masks.items():
        assert not parameters[name][mask].any()
        assert len(parameters[name].unique()) <= 8
        assert 0.0 in subject.codebooks[name]


def test_shared_weights_of_four_bits_take_half_a_byte_each_and_their_codebooks(tmp_path: Path) -> None:
    subject = subject_after("k-means:bits=4 + fixed", tmp_path)

    counted = subject.file.write(subject.model, tmp_path / "file")

    books = sum(4 * len(book) for book in subject.codebooks.values())
    assert len(subject.codebooks) == NUM_MATRICES
    assert counted["matrices_bytes"] == 4 * NUMBERS
    assert counted["fixed_bytes"] == NUMBERS // 2 + books
    assert counted["coded_bytes"] == NUMBERS // 2 + books + NUM_MATRICES  # a byte a matrix says how many bits


@pytest.mark.parametrize("coder", ["fixed", "huffman", "ans", "zstd"])
@pytest.mark.parametrize("before", ["", "bfloat16", "k-means:bits=5", "prune-global:amount=0.8 + k-means:bits=4", "int8-weight-only",
                                    "packed-int", "dynamic-int8", "prune:amount=0.7 + store-csr", "prune-2-4 + store-2-4"])  # fmt: skip
def test_a_coded_file_gives_every_bit_of_the_model_back(coder: str, before: str, tmp_path: Path) -> None:
    subject = subject_after(f"{before} + {coder}" if before else coder, tmp_path)

    counted = subject.file.write(subject.model, tmp_path / "file")

    assert subject.file.exact(subject.model, tmp_path / "file")
    assert counted["entropy_bytes"] <= counted["coded_bytes"] * 1.001 or coder == "zstd"


def test_a_file_that_was_changed_is_not_exact(tmp_path: Path) -> None:
    subject = subject_after("ans", tmp_path)
    subject.file.write(subject.model, tmp_path / "file")
    next(subject.model.parameters()).data[0, 0] += 1e-7

    assert not subject.file.exact(subject.model, tmp_path / "file")


def test_a_weight_that_two_layers_share_is_written_once(tmp_path: Path) -> None:
    tied, untied = TinyTask(tied=True).build(), TinyTask().build()
    file = CodedFile("raw", CODERS["raw"])
    sizes = []
    for model in (tied, untied):
        file.write(model, tmp_path / "file")
        sizes.append((tmp_path / "file").stat().st_size)
        assert file.exact(model, tmp_path / "file")

    assert sizes[1] - sizes[0] == pytest.approx(4 * 256 * 64, rel=0.01)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else entirely")

    with pytest.raises(ValueError, match="no file of coded weights"):
        read_weights(tmp_path / "file", CODERS["raw"])


@pytest.mark.parametrize("stages", ["", "int8-weight-only", "packed-int", "dynamic-int8", "prune + store-csr", "low-rank:rank=8"])
def test_the_plain_file_gives_the_model_back(stages: str, tmp_path: Path) -> None:
    model = subject_after(stages, tmp_path).model
    file = StateFile()
    file.write(model, tmp_path / "file")

    assert file.exact(model, tmp_path / "file")
    name, tensor = next((name, tensor) for name, tensor in tensors_of(model) if tensor.ndim == 2 and tensor.dtype == torch.float32)
    tensor[0, 0] += 1
    assert not file.exact(model, tmp_path / "file"), name
