"""The lab's documents -> their bytes and worth as sparse counts and as dense vectors, a `TextFacts`.

Documents are the pieces that the lab's classifier tells apart; every form is judged by the same
linear classifier, trained on the training documents and asked about those held out. Everything random has a seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from profiler.compression.base import to_install
from profiler.compression.held import plain_parts, unique_storages
from profiler.compression.lab import corpus
from profiler.compression.lab.chapters import CHAPTERS, Piece, pieces
from profiler.compression.text_forms import NEEDS, GradientForm, TextFacts, TextForm
from profiler.errors import CaptureUnavailable

DIMENSIONS = 64
_BATCH = 32
_STEPS = 300
_LR = 0.01

Array = np.ndarray[Any, Any]
Features = tuple[Any, Any, int]
"""Training documents, held-out ones, and the bytes of the table that made them."""


def measure_text(tell: Callable[[str, float], None] = lambda phase, share: None) -> TextFacts:
    """Return what each form of the documents takes and is worth, and what a step of training word vectors takes.

    Args:
        tell: called with the form at work and how much of the whole is done, 0 to 1; what it raises ends the work.

    Raises:
        CaptureUnavailable: scikit-learn is not installed.
    """
    if sentence := to_install(NEEDS):
        raise CaptureUnavailable(sentence)
    torch.set_num_threads(1)
    training, held_out = pieces(corpus.training()), pieces(corpus.held_out())
    tell("counting words", 0.0)
    counts = _counts(training, held_out)
    missing = to_install(("gensim",))
    ways: dict[tuple[str, str], Callable[[], Features]] = {
        ("counts", "Bag of words, CSR as CountVectorizer makes it"): lambda: counts,
        ("counts-uint8", "Bag of words, CSR with counts in a byte"): lambda: _in_a_byte(counts),
        ("lsa", f"Dense: truncated SVD to {DIMENSIONS}"): lambda: _reduced(counts),
        ("learned", f"Dense: mean of learned word vectors of {DIMENSIONS}"): lambda: _learned(counts, training),
    }
    if not missing:
        ways["word2vec", f"Dense: mean of word2vec vectors of {DIMENSIONS}"] = lambda: _word_vectors(training, held_out)
    forms: list[TextForm] = []
    for (name, label), make in ways.items():
        tell(label, len(forms) / len(ways))
        forms.append(form(name, label, make(), training, held_out))
    words = _bags(counts[0])[:_BATCH]
    return TextFacts(forms=tuple(forms), gradients=tuple(gradients(words, counts[0].shape[1])), missing=(missing,) if missing else ())


def form(name: str, label: str, features: Features, training: Sequence[Piece], held_out: Sequence[Piece]) -> TextForm:
    """Return the facts of one form."""
    from sklearn.linear_model import LogisticRegression

    matrix, unseen, table_bytes = features
    judge = LogisticRegression(max_iter=1000).fit(matrix, [piece.label for piece in training])
    rows, columns = matrix.shape
    return TextForm(
        name=name,
        label=label,
        num_documents=rows,
        num_columns=columns,
        zero_share=1 - (np.count_nonzero(matrix) if isinstance(matrix, np.ndarray) else matrix.nnz) / (rows * columns),
        held_bytes=array_bytes(matrix),
        dense_bytes=rows * columns * matrix.dtype.itemsize,
        file_bytes=_file_bytes(matrix),
        table_bytes=table_bytes,
        accuracy=float(judge.score(unseen, [piece.label for piece in held_out])),
    )


def array_bytes(matrix: Any) -> int:
    """Return the bytes that a numpy array or a CSR matrix of scipy holds; views count what they are views of."""
    parts = [matrix] if isinstance(matrix, np.ndarray) else [matrix.data, matrix.indices, matrix.indptr]
    owners = {id(owner): owner for owner in map(_owner, parts)}
    return sum(int(owner.nbytes) for owner in owners.values())


def gradients(documents: Sequence[Tensor], num_words: int, dimensions: int = DIMENSIONS) -> list[GradientForm]:
    """Return what one step with dense and with sparse gradients takes.

    Args:
        documents: of the batch, each the numbers of its words.
        num_words: rows of the table.
        dimensions: its columns.
    """
    found = []
    for name, label, sparse, optimizer, coalesce in (
        ("dense-adam", "Dense gradient, Adam", False, torch.optim.Adam, False),
        ("sparse-adam", "Sparse gradient as backward leaves it, SparseAdam", True, torch.optim.SparseAdam, False),
        ("sparse-adam-coalesced", "Sparse gradient, coalesced, SparseAdam", True, torch.optim.SparseAdam, True),
    ):
        torch.manual_seed(0)
        table = nn.EmbeddingBag(num_words, dimensions, mode="mean", sparse=sparse)
        _vectors(table, documents).sum().backward()  # type: ignore[no-untyped-call]
        gradient = table.weight.grad
        assert gradient is not None
        if coalesce:
            table.weight.grad = gradient = gradient.coalesce()
        gradient_bytes = _tensor_bytes([gradient])
        stepping: torch.optim.Optimizer = optimizer(list(table.parameters()))
        stepping.step()
        state = [value for slots in stepping.state.values() for value in slots.values() if isinstance(value, Tensor)]
        sizes = {"gradient_bytes": gradient_bytes, "state_bytes": _tensor_bytes(state), "table_bytes": table.weight.nbytes}
        found.append(GradientForm(name=name, label=label, **sizes))
    return found


def _counts(training: Sequence[Piece], held_out: Sequence[Piece]) -> Features:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=lambda piece: piece.words)
    return vectorizer.fit_transform(training), vectorizer.transform(held_out), 0


def _in_a_byte(counts: Features) -> Features:
    """Return the same counts as uint8; a document has fewer than 256 words, so none is cut."""
    return counts[0].astype(np.uint8), counts[1].astype(np.uint8), 0


def _reduced(counts: Features) -> Features:
    from sklearn.decomposition import TruncatedSVD

    reduction = TruncatedSVD(DIMENSIONS, random_state=0)
    training = reduction.fit_transform(counts[0].astype(np.float32)).astype(np.float32)
    held_out = reduction.transform(counts[1].astype(np.float32)).astype(np.float32)
    return training, held_out, int(reduction.components_.astype(np.float32).nbytes)


def _learned(counts: Features, training: Sequence[Piece]) -> Features:
    """Return means of word vectors that were trained to tell the chapters."""
    torch.manual_seed(0)
    documents, labels = _bags(counts[0]), torch.tensor([piece.label for piece in training])
    table = nn.EmbeddingBag(counts[0].shape[1], DIMENSIONS, mode="mean")
    head = nn.Linear(DIMENSIONS, len(CHAPTERS))
    optimizer = torch.optim.Adam([*table.parameters(), *head.parameters()], lr=_LR)
    for _ in range(_STEPS):
        some = torch.randint(0, len(documents), (_BATCH,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(_vectors(table, [documents[index] for index in some])), labels[some])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        seen, unseen = (_vectors(table, _bags(matrix)).numpy() for matrix in counts[:2])
    return seen, unseen, table.weight.nbytes


def _word_vectors(training: Sequence[Piece], held_out: Sequence[Piece]) -> Features:
    from gensim.models import Word2Vec

    texts = [[word.decode() for word in piece.words] for piece in training]
    table = Word2Vec(texts, vector_size=DIMENSIONS, min_count=1, seed=0, workers=1, epochs=20).wv

    def means(some: Sequence[Piece]) -> Array:
        known = [[word for word in map(bytes.decode, piece.words) if word in table] for piece in some]
        return np.stack([table[words].mean(0) if words else np.zeros(DIMENSIONS, np.float32) for words in known])

    return means(training), means(held_out), int(table.vectors.nbytes)


def _bags(counts: Any) -> list[Tensor]:
    """Return the numbers of each document's words, each as often as it is counted."""
    ends = counts.indptr
    return [
        torch.from_numpy(np.repeat(counts.indices[first:last], counts.data[first:last]).astype(np.int64)) for first, last in pairwise(ends)
    ]


def _vectors(table: nn.EmbeddingBag, documents: Sequence[Tensor]) -> Tensor:
    starts = torch.tensor([0, *(len(document) for document in documents[:-1])]).cumsum(0)
    vectors: Tensor = table(torch.cat(list(documents)), starts)
    return vectors


def _tensor_bytes(tensors: Sequence[Tensor]) -> int:
    parts = chain.from_iterable(plain_parts(str(index), tensor) for index, tensor in enumerate(tensors))
    return sum(part.untyped_storage().nbytes() for part in unique_storages(parts))


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _file_bytes(matrix: Any) -> int:
    with tempfile.TemporaryDirectory(prefix="headroom-") as folder:
        path = Path(folder) / "documents.npz"
        if isinstance(matrix, np.ndarray):
            path = path.with_suffix(".npy")
            np.save(path, matrix)
        else:
            from scipy.sparse import save_npz

            save_npz(path, matrix, compressed=False)
        return path.stat().st_size
