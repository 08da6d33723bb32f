"""This project's own formula under the toggles that change what is held."""

from __future__ import annotations

from profiler.estimate.own import own_estimate
from profiler.models.catalogue import entry
from profiler.recording import Category
from profiler.spec import Job, Model, Toggle, Workload

NAME = "llama-3-8b"
NUM_PARAMETERS = entry(NAME).num_parameters_with_head
LAYERS, WIDTH, TOKENS, BFLOAT16_BYTES = 32, 4096, 2 * 8192, 2


def activations(*toggles: Toggle) -> int:
    job = Job(
        model=Model(name=NAME), workload=Workload(batch=2, seq=8192), device="b200", toggles=(Toggle("bf16"), Toggle("sgd"), *toggles)
    )
    return own_estimate(NUM_PARAMETERS, job).parts[Category.ACTIVATION]


def test_a_checkpointed_layer_keeps_its_input_and_one_is_whole_at_a_time() -> None:
    layer_input = TOKENS * WIDTH * BFLOAT16_BYTES
    whole, full = activations(), activations(Toggle("checkpointing"))
    half = activations(Toggle("checkpointing", (("every", "2"),)))

    layer = (half - full + LAYERS // 2 * layer_input) // (LAYERS // 2)
    assert whole - full == (LAYERS - 1) * layer - LAYERS * layer_input
    assert full > LAYERS * layer_input + layer


def test_formulas_say_what_they_know_nothing_of() -> None:
    job = Job(model=Model(name=NAME), workload=Workload(batch=1, seq=64), device="b200", toggles=(Toggle("eager"), Toggle("checkpointing")))
    validity = own_estimate(NUM_PARAMETERS, job).validity
    assert "nothing of eager." in validity
    assert "checkpointing" not in validity
