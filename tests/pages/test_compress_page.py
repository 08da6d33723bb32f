"""Compress: the link is the pipeline, what is stored is shown at once, promises are judged by results, a target ends with its best."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared import compress_choice, compress_runs, session
from profiler.compression import lab
from profiler.compression.experiment import Experiment
from profiler.compression.promises import PROMISES
from profiler.compression.result import MOST_KEPT_BYTES, LayerFacts, Result
from profiler.errors import FormatError
from profiler.jobs.experiments import Experiments, result_key
from profiler.units import MIB
from tests.compression.results import result
from tests.pages.conftest import Open, texts

MODEL = "tiny"


@pytest.fixture(autouse=True)
def experiments(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Experiments]:
    """A lab of models of a few thousand parameters; nothing of it runs until it is asked for."""
    made = Experiments(home, command=[sys.executable, "-m", "tests.compression.fake_lab_worker"])
    names = (MODEL, "refused", "slow")
    shape = lab.Shape(num_parameters=1000, num_linear=800, num_output=100)
    models = {
        name: lab.LabModel(name=name, label=f"The {name} model", explanation="For tests.", fingerprint=lambda: "", code="", shape=shape)
        for name in names
    }
    monkeypatch.setattr(lab, "MODELS", models)
    monkeypatch.setattr(session, "experiments", lambda: made)
    monkeypatch.setattr(compress_runs, "_POLL_SECONDS", None)
    yield made
    made.close()


def keep(experiments: Experiments, *found: Result, weights: Path | None = None) -> None:
    for one in found:
        experiments.store.add(result_key(one.experiment), one, weights)


def waited(app: AppTest, seconds: float = 60) -> AppTest:
    deadline = time.monotonic() + seconds
    while app.get("progress") and time.monotonic() < deadline:
        time.sleep(0.3)
        app.run()
    return app


def buttons(app: AppTest) -> dict[str, str]:
    return {str(button.key): button.label for button in app.button}


def test_the_start_page_leads_to_a_pipeline(opened: Open) -> None:
    links = [str(link.proto) for link in opened("start").get("page_link")]

    assert any("Prune half, then pack into four bits" in link and "stages=prune-global" in link for link in links)
    app = opened("compress", **compress_choice.link(compress_choice.EXAMPLE))
    assert not app.error
    assert buttons(app)["compress_measure"] == "Measure"


def test_where_nothing_is_chosen_pipelines_are_offered_and_nothing_is_measured_yet(opened: Open) -> None:
    app = opened("compress")
    assert "Nothing is done to the model yet" in texts(app)
    assert "Nothing yet." in texts(app)

    app.button(key="compress_begin_deep-compression").click().run()

    assert app.query_params["stages"] == "prune-global:amount=0.7;fine-tune;k-means:bits=5;huffman"
    assert "Saves on disk and in transfer only" in texts(app)


def test_the_default_lab_is_run_from_the_page_until_nothing_of_it_is_missing(
    opened: Open, experiments: Experiments, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Experiment.of(MODEL, (name,)) for name in ("bfloat16", "zstd")]
    monkeypatch.setattr(compress_runs, "default_lab", lambda model: wanted)
    keep(experiments, result("bfloat16", model=MODEL))
    app = opened("compress", model=MODEL)
    assert "Not measured yet: 1 of 2." in texts(app)

    app.button(key="compress_default_lab").click().run()
    app = waited(app)

    assert experiments.store.find(result_key(wanted[1]))
    keep(experiments, result("zstd", model=MODEL))
    assert "compress_default_lab" not in buttons(opened("compress", model=MODEL))


def test_a_result_that_is_in_the_store_is_shown_at_once_with_its_four_measures(
    opened: Open, experiments: Experiments, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    found = result("packed-int", model=MODEL, held=187, file=200, loss=1.41, seconds=1.1)
    keep(experiments, replace(found, wall_seconds=3.0, baseline_wall_seconds=2.0), weights=weights)

    app = opened("compress", model=MODEL, stages="packed-int")

    shown = {metric.label: metric.value for metric in app.metric}
    assert shown == {"Held in memory": "187 B", "File": "200 B", "Time of a pass": "1.10 s", "Loss": "1.4100"}
    said = texts(app)
    assert "0.187 of 0.98 KiB" in said
    assert "+0.0100 against 1.4000" in said
    assert "1.10 of 1.00 s; 990 ms to 1.32 s" in said
    assert "Measured. A pass took 3.00 s of 2.00 s by the clock. Resident set" in said
    assert "- a note" in said
    assert next(button.label for button in app.get("download_button")) == "Compressed file"
    assert buttons(app)["compress_measure"] == "Measure again"


def test_where_there_is_no_compressed_file_the_page_says_why(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("nf4", model=MODEL, file=MOST_KEPT_BYTES), result("bfloat16", model=MODEL, file=MOST_KEPT_BYTES + MIB))

    lost, large = (opened("compress", model=MODEL, stages=stage) for stage in ("nf4", "bfloat16"))

    assert "The compressed file, 320 MiB, is not in the store. Measure again to have it." in texts(lost)
    assert "The compressed file, 321 MiB, was measured and not kept: more than 320 MiB are not" in texts(large)
    assert next(button.label for button in large.get("download_button")) == "Report as JSON"


def test_what_another_version_measured_is_shown_and_can_be_measured_again(opened: Open, experiments: Experiments) -> None:
    experiments.store.add("0" * 24, result("nf4", model=MODEL, held=196))

    app = opened("compress", model=MODEL, stages="nf4")

    assert "This was measured with another version" in texts(app)
    assert app.metric[0].value == "196 B"
    assert buttons(app)["compress_measure"] == "Measure"


def test_all_results_of_a_model_are_a_chart_and_a_table_that_begins_with_the_untouched_one(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("bfloat16", model=MODEL, held=500), result("nf4", model=MODEL, held=196, loss=1.43), result("zstd"))

    app = opened("compress", model=MODEL)

    table = next(frame.value for frame in app.dataframe if "perplexity" in frame.value)
    assert table["technique"].tolist()[0] == "untouched"
    assert set(table["technique"]) == {"untouched", "bfloat16", "nf4"}
    assert table.set_index("technique")["held_share"]["nf4"] == 0.196
    assert table["accuracy_share"].tolist() == [0.5, 0.5, 0.5]
    assert "bleu" not in table


def test_a_model_of_tokens_says_what_it_loses_per_byte(opened: Open, experiments: Experiments) -> None:
    keep(experiments, replace(result("nf4", model=MODEL, loss=2.0), unit="token", num_targets=10, num_text_bytes=40))

    app = opened("compress", model=MODEL, stages="nf4")

    assert "loss per byte 0.5000 (was 0.3500), perplexity per byte 1.649 (was 1.419), accuracy" in texts(app)
    assert next(frame.value for frame in app.dataframe if "perplexity" in frame.value)["loss_per_byte"].tolist() == [0.35, 0.5]


def test_what_was_not_measured_is_an_empty_cell(opened: Open, experiments: Experiments) -> None:
    keep(experiments, replace(result("nf4", model=MODEL), seconds_spread=None, baseline_seconds_spread=None))

    shown = next(frame for frame in opened("compress", model=MODEL).dataframe if "perplexity" in frame.value)

    assert shown.value["fastest_us"].isna().all()
    assert shown.proto.HasField("placeholder")  # without one the browser writes None
    assert shown.proto.placeholder == ""


def test_quality_is_loss_accuracy_or_bleu_where_the_model_has_one_and_the_link_says_so(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("nf4", model=MODEL, accuracy=0.45, bleu=71.5))
    app = opened("compress", model=MODEL, stages="nf4")
    assert "accuracy 45.0% (was 50.0%), BLEU 71.5 (was 80.0)" in texts(app)
    assert next(frame.value for frame in app.dataframe if "perplexity" in frame.value)["bleu"].tolist() == [80.0, 71.5]

    quality = next(group for group in app.segmented_control if group.label == "Quality")
    assert quality.options == ["Loss", "Accuracy", "BLEU"]
    quality.set_value("bleu").run()

    assert app.query_params["quality"] == "bleu"
    keep(experiments, replace(result("bfloat16", model=MODEL), model_hash="of no translation", created=3.0))
    app.run()
    assert next(group for group in app.segmented_control if group.label == "Quality").options == ["Loss", "Accuracy"]


def test_results_on_other_weights_of_the_same_name_are_left_out(experiments: Experiments) -> None:
    old, new = result("bfloat16", model=MODEL), result("nf4", model=MODEL)
    keep(experiments, replace(old, model_hash="old"), replace(new, model_hash="new", created=2.0))

    assert [one.experiment.technique for one in compress_runs.results(MODEL)] == ["nf4"]


def test_techniques_are_added_changed_and_moved_and_the_link_follows(opened: Open) -> None:
    app = opened("compress", model=MODEL, stages="prune")
    app.selectbox(key="compress_add").set_value("zstd").run()
    app.number_input(key="compress_option_0_amount").set_value(0.7).run()
    assert app.query_params["stages"] == "prune:amount=0.7;zstd"

    app.button(key="compress_up_1").click().run()

    assert "Put zstd last" in app.error[0].value
    app.button(key="compress_remove_0").click().run()
    assert app.query_params["stages"] == "prune:amount=0.7"
    assert not app.error


@pytest.mark.parametrize("stages", ["no-such-thing", "prune:amount=2", "=;:", "deep-compression;zstd:level=99"])
def test_a_link_with_an_impossible_technique_says_so_and_the_page_still_works(opened: Open, stages: str) -> None:
    app = opened("compress", stages=stages)
    assert app.error

    app.selectbox(key="compress_add").set_value("bfloat16").run()

    assert app.query_params["stages"] == "bfloat16"
    assert not app.error


def test_an_experiment_is_run_when_asked_and_its_result_is_shown(opened: Open, experiments: Experiments) -> None:
    app = opened("compress", model=MODEL, stages="bfloat16")
    assert not experiments.store.list()

    waited(app.button(key="compress_measure").click().run())

    assert not app.error
    assert [metric.label for metric in app.metric] == ["Held in memory", "File", "Time of a pass", "Loss"]
    assert "0.500 of" in texts(app)


def test_what_cannot_be_measured_says_why(opened: Open) -> None:
    app = opened("compress", model="refused", stages="bfloat16")

    waited(app.button(key="compress_measure").click().run())

    assert "refused · bfloat16: This model is not here. Take another." in app.error[0].value


@pytest.mark.parametrize("view", ["Pipeline", "Promises", "Break-even", "Target"])
def test_a_model_whose_weights_are_damaged_is_told_in_one_sentence(opened: Open, monkeypatch: pytest.MonkeyPatch, view: str) -> None:
    def damaged() -> str:
        raise FormatError("weights is damaged. Install Headroom again.")

    monkeypatch.setattr(lab, "MODELS", {MODEL: replace(lab.MODELS[MODEL], fingerprint=damaged)})
    app = opened("compress", model=MODEL, stages="bfloat16", view=view)
    if view == "Target":
        app.button(key="target_measure_1").click().run()

    assert [error.value for error in app.error] == ["weights is damaged. Install Headroom again."]
    assert not app.exception


def test_a_run_is_cancelled(opened: Open) -> None:
    app = opened("compress", model="slow", stages="bfloat16")
    app.button(key="compress_measure").click().run()
    assert app.button(key="compress_measure").disabled

    app.button(key="compress_cancel").click().run()
    waited(app, 20)

    assert "Cancelled." in texts(app)


def test_missing_packages_are_named_before_a_run(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.compression.base.importlib.util.find_spec", lambda name: None)
    app = opened("compress", model=MODEL, stages="ans")

    app.button(key="compress_measure").click().run()

    assert "Install constriction to measure this: pip install constriction." in app.error[0].value


def test_promises_are_judged_by_what_was_measured(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("prune:amount=0.6", model=MODEL, held=1000, seconds=1.0))

    app = opened("compress", model=MODEL, view="Promises")
    said = texts(app)

    assert "Does not hold" in said
    assert "Measured: 60 % of the weights are zero" in said
    assert said.count("badge[Not measured yet]") == len(PROMISES) - 1
    assert buttons(app)["compress_promises"] == "Measure all promises"
    assert "promise_prune-compute" not in buttons(app)
    app.button(key="promise_see_four-bits").click().run()
    assert app.query_params["stages"] == "packed-int"
    assert "view" not in app.query_params


def test_each_promise_that_was_not_measured_has_a_button_that_measures_it(opened: Open, experiments: Experiments) -> None:
    app = opened("compress", model=MODEL, view="Promises")
    offered = {key for key, label in buttons(app).items() if key.startswith("promise_") and label == "Measure"}
    assert offered == {f"promise_{promise.name}" for promise in PROMISES}

    app = waited(app.button(key="promise_bitmask").click().run())

    assert [one.experiment.technique for one in experiments.store.list()] == ["prune:amount=0.4 + store-bitmask"]
    assert "promise_bitmask" not in buttons(app)
    assert "With 40% zeros in the matrices this format holds" in texts(app)


def test_a_target_ranks_candidates_and_ends_with_the_best_that_meets_it(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("packed-int", model=MODEL, held=187, loss=1.41), result("bfloat16", model=MODEL, held=500))

    app = opened("compress", model=MODEL, view="Target", ratio="0.3")

    assert "**packed-int** meets it: 187 B, 0.187 of the untouched model, loss +0.0100." in texts(app)
    tried = next(frame.value for frame in app.dataframe if "misses" in frame.value).set_index("technique")
    assert tried["misses"]["bfloat16"] == "bytes 0.500, above 0.300"
    candidates = next(frame.value for frame in app.dataframe if "why" in frame.value)
    assert candidates["meets"].tolist() == sorted(candidates["meets"], reverse=True)

    app.text_input(key="linked_ratio").set_value("0.1").run()
    assert "Nothing that was measured meets the target yet." in texts(app)
    app.text_input(key="linked_ratio").set_value("a third").run()
    assert "'a third' is neither a share nor a size" in app.error[0].value


def test_a_target_is_typed_in_bytes_and_milliseconds_and_stays_so_in_the_address(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("packed-int", model=MODEL, held=187, loss=1.41), result("bfloat16", model=MODEL, held=500))
    app = opened("compress", model=MODEL, view="Target", ratio="300 B")
    assert "**packed-int** meets it: 187 B, 0.187 of the untouched model, loss +0.0100." in texts(app)

    app.text_input(key="linked_time").set_value("900 ms").run()

    assert "Nothing that was measured meets the target yet." in texts(app)
    tried = next(frame.value for frame in app.dataframe if "misses" in frame.value).set_index("technique")
    assert tried["misses"]["bfloat16"] == "bytes 0.500, above 0.300; time 1.00, above 0.90"
    assert (app.query_params["ratio"], app.query_params["time"]) == ("300 B", "900 ms")


def test_what_lies_beside_the_nearest_result_is_offered_and_measured(opened: Open, experiments: Experiments) -> None:
    keep(experiments, result("packed-int", model=MODEL, held=320, loss=1.41), result("bfloat16", model=MODEL, held=500))
    app = opened("compress", model=MODEL, view="Target", ratio="0.25")

    assert "**packed-int** is nearest: it misses bytes 0.320, above 0.250. Beside it:" in texts(app)
    offered = {key: label for key, label in buttons(app).items() if key.startswith("target_adjust")}
    assert list(offered.values()) == ["Measure packed-int:bits=2", "Measure packed-int:bits=8"]
    waited(app.button(key="target_adjust_0").click().run())

    assert Experiment.of(MODEL, ("packed-int:bits=2",)) in [one.experiment for one in experiments.store.list()]
    app.button(key="target_by_hand").click().run()
    assert app.query_params["stages"].startswith("packed-int")


def test_break_even_is_drawn_from_formulas_before_anything_was_measured(opened: Open) -> None:
    app = opened("compress", model=MODEL, view="Break-even")
    table = app.dataframe[0].value.set_index("format")

    assert table["smaller_from_share"]["Bitmask"] == pytest.approx(1 / 32, abs=0.001)
    assert "faster_from_share" not in table
    assert "16 experiments" in texts(app)
    app.selectbox(key="linked_numbers").set_value("bfloat16").run()
    assert app.dataframe[0].value.set_index("format")["smaller_from_share"]["Bitmask"] == pytest.approx(1 / 16, abs=0.001)


def test_products_of_the_chosen_shape_are_timed_and_the_table_says_from_where_on_a_format_is_faster(opened: Open) -> None:
    app = opened("compress", model=MODEL, view="Break-even", rows="64", columns="64", inputs="4")

    waited(app.button(key="compress_products").click().run())

    assert not app.error
    assert buttons(app)["compress_products"] == "Measure again"
    assert "faster_from_share" in app.dataframe[0].value
    app.number_input(key="linked_inputs").set_value(5).run()
    assert buttons(app)["compress_products"] == "Measure products of this shape"
    app.number_input(key="linked_rows").set_value(63).run()
    assert "A matrix of 63 x 64 cannot be timed in every format." in texts(app)
    assert "compress_products" not in buttons(app)


def test_seeds_of_what_is_trained_are_told_with_their_spread(opened: Open, experiments: Experiments) -> None:
    for seed, loss in enumerate((1.5, 1.3)):
        found = result("fine-tune", model=MODEL, loss=loss)
        keep(experiments, replace(found, experiment=Experiment.of(MODEL, ("fine-tune",), seed=seed)))

    app = opened("compress", model=MODEL, stages="fine-tune", details="Seeds")

    assert "Loss over 2 seeds: 1.3000 to 1.5000, mean 1.4000, standard deviation 0.1414." in texts(app)
    assert "3 experiments" in texts(app)
    keep(experiments, result("nf4", model=MODEL))
    assert "Nothing here sees training batches" in texts(opened("compress", model=MODEL, stages="nf4", details="Seeds"))


def test_numbers_in_the_address_that_cannot_be_are_moved_to_what_can_be_or_not_taken(opened: Open) -> None:
    app = opened("compress", view="Break-even", rows="9" * 5000, columns="-3", seed="x")

    assert (app.number_input(key="linked_rows").value, app.number_input(key="linked_columns").value) == (65_536, 768)


def test_layers_are_measured_one_by_one_where_the_technique_can(opened: Open, experiments: Experiments) -> None:
    plain, facts = result("prune", model=MODEL), (LayerFacts(name="a.weight", num_weights=10, loss=1.5),)
    by_layer = Experiment.of(MODEL, ("prune",), by_layer=True)
    keep(experiments, plain)
    app = opened("compress", model=MODEL, stages="prune", details="Layer sensitivity")
    assert buttons(app)["compress_by_layer"] == "Measure each matrix alone"

    keep(experiments, replace(plain, experiment=by_layer, layers=facts))
    app.run()

    table = next(frame.value for frame in app.dataframe if "matrix" in frame.value)
    assert table["loss_gain"].tolist() == pytest.approx([0.1])
