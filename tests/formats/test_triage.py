"""What people paste: every wording of torch, in plain words, without what tells who they are."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.errors import FormatError, SpecError
from profiler.formats.messages import MAX_CHARS, MemoryFacts, read_message
from profiler.formats.redact import redact
from profiler.formats.tensor_sizes import driver_bytes, tensors_of_size
from profiler.formats.triage import triage
from profiler.spec import Model, Workload
from profiler.units import GIB, MIB

V1_0 = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 10.92 GiB total capacity; 9.72 GiB already allocated; "
    "19.50 MiB free; 221.72 MiB cached)"
)
V1_5 = (
    "RuntimeError: CUDA out of memory. Tried to allocate 1.25 GiB (GPU 3; 15.90 GiB total capacity; 12.00 GiB already allocated; "
    "500.00 MiB free; 14.00 GiB reserved in total by PyTorch)"
)
V1_12 = V1_5 + (
    " If reserved memory is >> allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory "
    "Management and PYTORCH_CUDA_ALLOC_CONF"
)
V2_1 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacty of "
    "23.65 GiB of which 1.04 GiB is "
    "free. Process 1234 has 22.61 GiB memory in use. Of the allocated memory 18.31 GiB is allocated by PyTorch, and "
    "3.93 GiB is reserved by "
    "PyTorch but unallocated. If reserved but unallocated memory is large try setting max_split_size_mb to avoid fragmentation."
)
V2_6 = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 86.00 MiB. GPU 0 has a total capacity of 23.64 "
    "GiB of which 264.00 MiB is "
    "free. Process 2086283 has 419.48 MiB memory in use. Including non-PyTorch memory, this process has 8.04 GiB "
    "memory in use. Process 2797307 "
    "has 14.85 GiB memory in use. Of the allocated memory 7.63 GiB is allocated by PyTorch, with 46.00 MiB "
    "allocated in private pools (e.g., CUDA "
    "Graphs), and 40.11 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
FRACTION = (
    "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total capacity of 255.98 "
    "GiB of which 244.65 GiB is free. "
    "1.05 GiB allowed; Of the allocated memory 1017.01 MiB is allocated by PyTorch, with 17.00 MiB allocated in "
    "private pools (e.g., HIP Graphs), "
    "and 54.99 MiB is reserved by PyTorch but unallocated."
)
UNLIMITED = V2_6.replace("8.04 GiB", "17179869184.00 GiB")
ASYNC = (
    "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 3.50 "
    "GiB\nRequested               : 1.00 GiB\n"
    "Device limit            : 4.00 GiB\nFree (according to CUDA): 12.00 MiB\nPyTorch limit (set by user-supplied memory fraction)\n"
    "                        : 17179869184.00 GiB"
)
XPU = (
    "XPU out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.91 GiB of which 15.00 GiB is "
    "free. Of the allocated memory "
    "0 bytes is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated. Please use `empty_cache`"
)
MPS = (
    "MPS backend out of memory (MPS allocated: 17.56 GiB, other allocations: 445.52 MiB, max allowed: 18.13 GiB). "
    "Tried to allocate 256.00 MiB on "
    "private pool."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 8589934592 bytes. Error code 12"
)
SUMMARY = """
|===========================================================================|
|                  PyTorch CUDA memory summary, device ID 2                 |
|---------------------------------------------------------------------------|
|            CUDA OOMs: 1            |        cudaMalloc retries: 4         |
|===========================================================================|
|        Metric         | Cur Usage  | Peak Usage | Tot Alloc  | Tot Freed  |
|---------------------------------------------------------------------------|
| Allocated memory      |  10240 MiB |  12288 MiB |    900 GiB |    890 GiB |
|       from large pool |  10200 MiB |  12200 MiB |    899 GiB |    889 GiB |
|---------------------------------------------------------------------------|
| Active memory         |  10240 MiB |  12288 MiB |    900 GiB |    890 GiB |
| GPU reserved memory   |  14336 MiB |  15360 MiB |     15 GiB |   1024 MiB |
| Non-releasable memory |   3072 MiB |   4096 MiB |    600 GiB |    597 GiB |
| Allocations           |     885    |     912    |   64500    |   63615    |
|===========================================================================|
"""

HOME = "/" + "home"  # written so that no folder of a machine stands in the project
USERS = "/" + "Users"


def _gib(number: float) -> int:
    return round(number * GIB)


def test_the_wordings_of_torch_1() -> None:
    old, middle, late = (read_message(text) for text in (V1_0, V1_5, V1_12))

    assert (old.requested_bytes, old.total_bytes, old.device) == (20 * MIB, _gib(10.92), 0)
    assert (old.allocated_bytes, old.free_bytes, old.unallocated_bytes) == (_gib(9.72), round(19.5 * MIB), round(221.72 * MIB))
    assert (middle.unallocated_bytes, middle.reserved_bytes, middle.device) == (2 * GIB, 14 * GIB, 3)
    assert not middle.said_max_split
    assert late.said_max_split


def test_the_wordings_of_torch_2() -> None:
    first, new = read_message(V2_1), read_message(V2_6)

    # The only process that is listed holds at least what PyTorch reserved: it is this one.
    assert (first.total_bytes, first.process_bytes, first.other_process_bytes) == (_gib(23.65), _gib(22.61), ())
    assert (new.process_bytes, new.other_process_bytes) == (_gib(8.04), (round(419.48 * MIB), _gib(14.85)))
    assert (new.private_pool_bytes, new.allocated_bytes, new.unallocated_bytes) == (46 * MIB, _gib(7.63), round(40.11 * MIB))
    assert read_message(UNLIMITED).process_bytes is None


def test_other_backends() -> None:
    fraction, pool, xpu, mps, cpu = (read_message(text) for text in (FRACTION, ASYNC, XPU, MPS, CPU))

    assert (fraction.backend, fraction.allowed_bytes) == ("HIP", _gib(1.05))
    assert (pool.requested_bytes, pool.total_bytes, pool.allocated_bytes, pool.free_bytes) == (GIB, 4 * GIB, _gib(3.5), 12 * MIB)
    assert (xpu.backend, xpu.allocated_bytes) == ("XPU", 0)
    assert (mps.backend, mps.requested_bytes, mps.allowed_bytes) == ("MPS", 256 * MIB, _gib(18.13))
    assert mps.other_allocated_bytes == round(445.52 * MIB)
    assert (cpu.backend, cpu.requested_bytes) == ("CPU", 8 * GIB)


@pytest.mark.parametrize("unit", ["MiB", "MB"])
def test_a_memory_summary_in_both_spellings(unit: str) -> None:
    facts = read_message(SUMMARY.replace("MiB", unit))

    assert (facts.source, facts.device, facts.num_ooms, facts.num_retries) == ("memory summary", 2, 1, 4)
    assert (facts.allocated_bytes, facts.unallocated_bytes, facts.peak_allocated_bytes) == (10 * GIB, 4 * GIB, 12 * GIB)
    assert (facts.peak_reserved_bytes, facts.non_releasable_bytes) == (15 * GIB, 3 * GIB)
    said = triage(SUMMARY)
    assert said.verdict == "PyTorch holds 14.0 GiB of GPU 2, 10.0 GiB of it in tensors."
    assert any("empty_cache cannot give them back" in sentence for sentence in said.explanation)
    assert "expandable_segments" in said.suggestions[0]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (XPU, "One request of 20.0 GiB is larger than all of GPU 0 (15.9 GiB): nothing that is freed can make it fit."),
        (FRACTION, "The limit of 1.05 GiB that was set for this process was reached, not the memory of GPU 0."),
        (V2_6, "86.0 MiB could not be had on GPU 0, where other processes hold 15.3 GiB."),
        (
            V2_1,
            "2.00 GiB could not be had on GPU 1 although PyTorch held 3.93 GiB that no tensor used: most likely it was in pieces that were "
            "too small.",
        ),
        (
            V2_1.replace("3.93 GiB is", "1.00 GiB is"),
            "2.00 GiB could not be had on GPU 1 although the 1.00 GiB that PyTorch held and no tensor used and the 1.04 GiB that were free "
            "are enough together: most likely it was in pieces that were too small.",
        ),
        (V2_1.replace("3.93 GiB is", "93.00 MiB is"), "2.00 GiB could not be had on GPU 1: tensors hold 18.3 GiB of 23.7 GiB."),
        (
            "CUDA out of memory. Tried to allocate 3.91 GiB",
            "3.91 GiB could not be had on the GPU; the message does not say why: it does not tell what held the memory.",
        ),
        (
            "CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of 24.00 GiB of which 10.00 MiB is free. Of the "
            "allocated memory 2.00 GiB is allocated by PyTorch, and 1.00 MiB is reserved by PyTorch but unallocated.",
            "1.00 GiB could not be had on GPU 0, where tensors hold only 2.00 GiB of 24.0 GiB; the message does not say what holds the "
            "rest.",
        ),
        (
            # 17.56 GiB + 445.52 MiB + 256 MiB are 18.25 GiB.
            MPS,
            "The limit of 18.1 GiB that MPS keeps was reached: tensors held 17.6 GiB and other allocations 446 MiB when 256 MiB more were "
            "asked for.",
        ),
        (MPS.replace("18.13", "19.00"), "256 MiB could not be had on the GPU: tensors hold 17.6 GiB."),
        (CPU, "The machine's own memory (RAM) ran out when 8.00 GiB more were asked for; the GPU is not concerned."),
        ("CUDA error: out of memory", "CUDA ran out of memory; the message says neither how much was asked for nor who held it."),
    ],
)
def test_the_verdict_says_what_ran_out_and_why(text: str, verdict: str) -> None:
    assert triage(text).verdict == verdict


def test_totals_alone_do_not_tell_why_free_memory_was_of_no_use() -> None:
    (said,) = [sentence for sentence in triage(V2_1).explanation if "do not tell why" in sentence]

    assert all(cause in said for cause in ("another stream's", "another pool", "freed while another stream still used it"))
    assert not [sentence for sentence in triage(V2_1.replace("3.93 GiB is", "93.00 MiB is")).explanation if "do not tell why" in sentence]


def test_the_first_suggestion_fits_the_cause() -> None:
    first = [triage(text).suggestions[0] for text in (V2_1, V2_6, FRACTION, CPU, MPS)]

    assert "expandable_segments:True" in first[0]
    assert "End the other processes" in first[1]
    assert "set_per_process_memory_fraction" in first[2]
    assert "data-loader" in first[3]
    assert "PYTORCH_MPS_HIGH_WATERMARK_RATIO" in first[4]
    assert not [suggestion for suggestion in triage(MPS).suggestions if "torch.cuda" in suggestion]


def test_twenty_mib_is_what_is_asked_for_any_tensor_of_a_few_mib() -> None:
    assert triage(V1_0).explanation[0] == "20.0 MiB is what PyTorch asks the driver for on behalf of any tensor between 1 and 10 MiB."
    assert [driver_bytes(size) for size in (1, MIB, MIB + 1, 10 * MIB - 1, 10 * MIB, 10 * MIB + 1)] == [
        2 * MIB,
        2 * MIB,
        20 * MIB,
        20 * MIB,
        10 * MIB,
        12 * MIB,
    ]


def test_the_tensor_of_the_size_is_named_where_the_model_is() -> None:
    text = V2_6.replace("86.00 MiB", "3.91 GiB")

    said = triage(text, Model(name="llama-3-8b"), Workload(batch=4, seq=2048))

    assert str(said.tensors[0]) == "float32 logits, 4 x 2,048 x 128,256"
    assert said.tensors[0].bytes == 4 * 2048 * 128_256 * 4
    assert any("fused linear cross-entropy" in suggestion for suggestion in said.suggestions)
    unknown_batch = triage(text, Model(name="llama-3-8b")).tensors
    assert [str(tensor) for tensor in unknown_batch] == [
        "float32 logits of 8,192 tokens, 8,192 x 128,256",
        "bfloat16 or float16 logits of 16,384 tokens, 16,384 x 128,256",
    ]


def test_no_tensor_is_named_from_a_size_that_any_could_have() -> None:
    assert triage(V1_0, Model(name="gpt2"), Workload(batch=4, seq=512)).tensors == ()
    assert tensors_of_size(11 * MIB, Model(name="gpt2")) == []


def test_a_model_that_is_not_known_is_refused() -> None:
    with pytest.raises(SpecError, match="Unknown model"):
        triage(V2_1, Model(name="no-such-model"))


def test_the_last_message_of_a_log_is_read() -> None:
    assert read_message(f"{V1_0}\nretrying\n{V2_1}\nlater").device == 1
    wrapped = V2_1.replace(" of which", "\n  of which")
    assert read_message(wrapped) == read_message(V2_1)


def test_a_text_without_a_message_or_too_long_is_refused() -> None:
    with pytest.raises(FormatError, match="no out-of-memory message"):
        read_message("all is well")
    with pytest.raises(FormatError, match="at most 200,000 are read"):
        read_message("x" * (MAX_CHARS + 1))
    with pytest.raises(FormatError, match="no rows"):
        read_message("PyTorch CUDA memory summary, device ID 0")


def test_markdown_is_ready_to_paste() -> None:
    text = f'Traceback\n  File "{HOME}/alice b/secret plan/train.py", line 3, in <module>\n```\n' + V2_6

    markdown = triage(text, names=("secret",)).to_markdown()

    assert markdown.startswith("**86.0 MiB could not be had on GPU 0")
    assert "| asked for | 86.0 MiB |" in markdown
    assert "| held by other processes | 15.3 GiB |" in markdown
    assert markdown.count("```") == 2
    assert not [word for word in ("alice", "secret", "plan", "2086283") if word in markdown]


def test_the_message_is_quoted_whatever_the_log_says_after_it() -> None:
    before = [f"step {number}: loss 2.31, all is well" for number in range(200)]
    after = [f"rank 0 waits for the others before it ends, {number}" for number in range(40)]
    log = "\n".join([*before, f"cd {HOME}/alice/x", V2_6, *after])

    quote = triage(log).quote

    assert "CUDA out of memory. Tried to allocate 86.00 MiB" in quote
    assert "40.11 MiB is reserved by PyTorch but unallocated" in quote
    assert "cd .../x\ntorch.OutOfMemoryError" in quote, "what led to it is quoted too"
    assert quote.startswith("step 18"), "from the beginning of a line"
    assert "alice" not in quote
    assert len(quote) <= 1_600


@pytest.mark.parametrize("before", [0, 300, 395, 400, 405, 500])
def test_a_path_at_the_quotes_edge_is_left_out_as_a_whole(before: int) -> None:
    assert "alice" not in triage(f"{HOME}/alice/secret/train.py" + " x" * (before // 2) + V2_6).quote
    assert "alice" not in triage(V2_6 + " x" * (350 + before // 5) + f"{HOME}/alice/secret/train.py").quote


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'File "{HOME}/alice/x y/train.py", line 1', 'File ".../train.py", line 1'),
        ('File "C:\\Users\\Bob Smith\\run.py", line 2', 'File ".../run.py", line 2'),
        (f"at {HOME}/alice/.venv/lib/python3.12/site-packages/torch/nn/linear.py now", "at .../torch/nn/linear.py now"),
        (f"cd {HOME}/alice; ls", "cd .../<user>; ls"),
        ("~/models/private-llm/weights.bin", ".../weights.bin"),
        ("see https://pytorch.org/docs/stable/notes/cuda.html#x", "see https://pytorch.org/docs/stable/notes/cuda.html#x"),
        ("alice@gpu-box.lab.edu: 10.0.0.7", "<user>@<host>: <address>"),
        ("token hf_abcdefghijklmnop1234", "token <key>"),
        ('File "<stdin>", line 1', 'File "<stdin>", line 1'),
        ("on gpu-node-17.cluster.example.com: rank 3", "on <host>: rank 3"),
        ("at GPU17.LAB.EXAMPLE.DE.", "at <host>."),
        ("bobs-macbook.local and ip-10-0-0-7.ec2.internal", "<host> and <host>"),
        ("hostname=node17, MASTER_ADDR: node18", "hostname=<host>, MASTER_ADDR: <host>"),
        ("https://gpu.lab.example.com:8888/tree/alice?token=1", "https://<host>"),
        ("s3://alice-bucket/run", "s3://<host>"),
        ("torch.nn.functional.linear model.layers.0.mlp torch.cuda.OutOfMemoryError", None),
        ("threading.local libc10.cuda.so train.step.py torch 2.13.0", None),
        ("user=jdoe", "user=<user>"),
        ("USER: jdoe", "USER: <user>"),
        ('{"username": "j.doe"}', '{"username": "<user>"}'),
        ("wandb: Currently logged in as: jdoe (acme-team)", "wandb: Currently logged in as: <user>"),
        ("logged in as jdoe", "logged in as <user>"),
        ("C:\\Users\\Bob Smith\\x.py", ".../x.py"),
        ("in C:\\Users\\Bob Smith\\My Project\\x.py, line 3", "in .../x.py, line 3"),
        (f"{USERS}/Bob Smith/code/x.py now", ".../x.py now"),
        ("open('C:\\Users\\Bob Smith')", "open('.../<user>')"),
        ("1.25 GiB / 2.00 GiB and 3/4", "1.25 GiB / 2.00 GiB and 3/4"),
    ],
)
def test_paths_names_and_addresses_are_left_out(text: str, shown: str | None) -> None:
    assert redact(text) == (text if shown is None else shown)


@settings(max_examples=200, deadline=2_000)
@given(st.text(max_size=300), st.sampled_from([V1_0, V2_1, V2_6, SUMMARY, MPS, CPU, ""]), st.text(max_size=300))
def test_any_text_around_a_message_is_read_or_refused(before: str, message: str, after: str) -> None:
    try:
        said = triage(before + message + after)
    except FormatError:
        assert not message or message == SUMMARY
    else:
        assert isinstance(said.facts, MemoryFacts)
        assert len(said.to_markdown()) < 10_000


@pytest.mark.parametrize(
    "hostile",
    [
        "/" * 100_000,
        "/a" * 50_000,
        "a@" * 50_000,
        "1." * 50_000,
        "| A" * 30_000,
        "Process 1 has " * 10_000,
        "9" * 100_000 + " GiB",
        "\\\\" * 50_000,
        'File "' * 20_000,
        "a.b-" * 25_000,
        "C:\\a b\\" * 14_000,
        "C:\\" + "a " * 50_000,
        f"{USERS}/a b" * 10_000,
        "'/a " * 25_000,
        "user=" * 20_000,
        "1-" * 50_000,
        "http://" * 14_000,
        "A" + " " * 90_000 + "|",
    ],
)
def test_hostile_texts_are_read_in_a_moment(hostile: str) -> None:
    begin = time.process_time()

    triage(hostile[:100_000] + "CUDA out of memory. Tried to allocate 1.00 GiB. " + hostile[:90_000])
    with contextlib.suppress(FormatError):
        read_message("PyTorch CUDA memory summary " + hostile)

    assert time.process_time() - begin < 3
