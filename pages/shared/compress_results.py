"""What experiments found: one result with its four measures, and all of a model's as a chart, a table and details."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import streamlit as st

from pages.shared import components, compress_runs, session
from profiler.compression.experiment import Experiment
from profiler.compression.result import MOST_KEPT_BYTES, Result
from profiler.compression.target import Goal, Worth, known_worths, loss_gain
from profiler.figures.experiments import GOALS, WORTHS, name_of, results_table, size_quality_figure, stages_table
from profiler.figures.sensitivity import sensitivity_figure, sensitivity_table, weights_figure
from profiler.jobs.experiments import result_key
from profiler.units import exact_bytes, format_bytes, format_duration_us

_SEEDS = range(5)


def one(experiment: Experiment) -> None:
    """Draw what an experiment found, where it was measured: bytes three ways, time, quality, the stages and the weights."""
    result = compress_runs.find(experiment)
    if result is None:
        result = compress_runs.measured_before(experiment)
        if result is None:
            return
        st.caption("This was measured with another version of Headroom or of its libraries. Measure it again for numbers of this one.")
    _metrics(result)
    quality, before = result.quality, result.baseline_quality
    bleu = "" if quality.bleu is None or before.bleu is None else f", BLEU {quality.bleu:.1f} (was {before.bleu:.1f})"
    resident, resident_before = format_bytes(result.size.resident_bytes), format_bytes(result.baseline_size.resident_bytes)
    per_byte = f" {result.per_byte_phrase}," if result.per_byte_phrase else ""
    clock = f"A pass took {result.wall_phrase}. " if result.wall_phrase else ""
    st.caption(
        f"Measured. {clock}Resident set {resident} (untouched {resident_before});"
        f" at most {format_bytes(result.conversion_peak_bytes)} while converting, which took"
        f" {format_duration_us(result.conversion_seconds * 1e6)}. Perplexity {quality.perplexity:.3f}"
        f" (was {before.perplexity:.3f}),{per_byte}"
        f" accuracy {quality.accuracy:.1%} (was {before.accuracy:.1%}){bleu};"
        f" the same choice as the untouched model in {result.agreement:.1%} of places."
        f" {'The file was read back and is exactly this model.' if result.exact_file else 'The file read back is not exactly this model.'}"
    )
    st.markdown("\n".join(f"- {note}" for note in dict.fromkeys(result.notes)))
    _details(result, experiment)
    _downloads(result, experiment)


def _downloads(result: Result, experiment: Experiment) -> None:
    name = f"compress-{experiment.id[:8]}"
    weights = session.experiments().store.weights_path(result_key(experiment))
    with st.container(horizontal=True, vertical_alignment="center"):
        if weights.exists():
            components.download("Compressed file", weights.read_bytes, f"{name}.weights", "application/octet-stream")
        components.download("Report as JSON", lambda: json.dumps(result.to_json(), indent=1), f"{name}.json", "application/json")
    if not weights.exists():
        st.caption(_why_no_file(result.size.file_bytes))


def _why_no_file(file_bytes: int) -> str:
    if file_bytes > MOST_KEPT_BYTES:
        most = format_bytes(MOST_KEPT_BYTES)
        return f"The compressed file, {format_bytes(file_bytes)}, was measured and not kept: more than {most} are not, to spare the disk."
    return f"The compressed file, {format_bytes(file_bytes)}, is not in the store. Measure again to have it."


def draw(model: str) -> None:
    """Draw everything that was measured on a model: size against quality, and the table."""
    st.subheader("Everything measured on this model", anchor=False)
    found = compress_runs.results(model)
    compress_runs.offer_default_lab(model, found)
    if not found:
        st.caption("Nothing yet. Measure a pipeline, a candidate or a promise: each result joins this chart and table, and is kept.")
        return
    goals, worths = list(GOALS), known_worths(found)
    with st.container(horizontal=True):
        goal = st.segmented_control("Bytes", goals, format_func=GOALS.__getitem__, required=True, **session.linked("bytes", goals))
        worth = st.segmented_control("Quality", worths, format_func=WORTHS.__getitem__, required=True, **session.linked("quality", worths))
    components.chart(
        size_quality_figure(found, Goal(goal or goals[0]), Worth(worth or worths[0]), theme=session.theme()),
        key="compress_pareto",
        alt="Bytes of each result against what it gives up of its quality; the table below has the numbers.",
    )
    st.caption(
        "Measured. Lower left is better; open circles are beaten in both by another result. Upward, 0 is the untouched model and each tick"
        " is ten times the one before it."
    )
    components.table(results_table(found), key="compress_table", alt="Every result: bytes, time and quality beside the untouched model's")
    with st.container(horizontal=True):
        components.download("Results as CSV", lambda: str(results_table(found).to_csv(index=False)), f"compress-{model}.csv", "text/csv")
        components.download("Results as JSON", lambda: _json(found), f"compress-{model}.json", "application/json")


def _metrics(result: Result) -> None:
    held, file, before = result.size.held_bytes, result.size.file_bytes, result.baseline_size
    gain, time = loss_gain(result), result.seconds / (result.baseline_seconds or 1.0)
    row = [
        components.Metric(
            "Held in memory",
            format_bytes(held),
            f"{exact_bytes(held)}; the untouched model holds {exact_bytes(before.held_bytes)}.",
            f"{result.ratio('held_bytes'):.3f} of {format_bytes(before.held_bytes)}",
        ),
        components.Metric(
            "File",
            format_bytes(file),
            f"{exact_bytes(file)}; the untouched model's has {exact_bytes(before.file_bytes)}.",
            f"{result.ratio('file_bytes'):.3f} of {format_bytes(before.file_bytes)}",
        ),
        components.Metric(
            "Time of a pass",
            format_duration_us(result.seconds * 1e6),
            "Processor time of a forward pass of one batch on one thread, the median of several in turns with the untouched model's.",
            f"{time:.2f} of {format_duration_us(result.baseline_seconds * 1e6)}{result.spread_phrase}",
        ),
        components.Metric(
            "Loss",
            f"{result.quality.loss:.4f}",
            f"Mean cross entropy on held-out text, in nats per {result.unit}.",
            f"{gain:+.4f} against {result.baseline_quality.loss:.4f}, nats per {result.unit}",
        ),
    ]
    components.metrics(row)


def _details(result: Result, experiment: Experiment) -> None:
    names = list(_DETAILS)
    chosen = str(st.segmented_control("Details", names, required=True, label_visibility="collapsed", **session.linked("details", names)))
    _DETAILS[chosen](result, experiment)


def _stages(result: Result, experiment: Experiment) -> None:
    del experiment
    components.table(stages_table(result), key="compress_stages", alt="The model after each technique", height="content")
    st.caption(
        "After each technique: bytes held and on disk, loss, and what it counted itself. Control: the loss of the untouched model"
        " trained in the same way, or of the same student without a teacher."
    )


def _weights(result: Result, experiment: Experiment) -> None:
    del experiment
    figure = weights_figure(result.histograms, theme=session.theme())
    components.chart(figure, key="compress_weights", alt="How many weights have which value, before and after; the report has the counts.")
    st.caption(
        "Weights of linear and recurrent layers as they multiply: quantized ones where their levels are, sparse ones with their zeros."
        " Counts on a logarithmic axis."
    )


def _sensitivity(result: Result, experiment: Experiment) -> None:
    first = experiment.techniques[0]
    if not first.by_layer:
        st.caption(f"{first.label} cannot be applied to one matrix alone. Pruning and quantization can, as the first technique.")
        return
    asked = replace(experiment, stages=experiment.stages[:1], by_layer=True)
    found = result if result.layers else compress_runs.find(asked)
    compress_runs.offer([asked], label="Measure each matrix alone", key="compress_by_layer")
    if found is None:
        return
    figure = sensitivity_figure(found, theme=session.theme())
    components.chart(figure, key="compress_sensitivity", alt="Loss with one matrix alone compressed; the table has the numbers.")
    st.caption(f"Measured: {found.experiment.stages[0]} on one matrix alone, all others untouched. Long bars are the ones to leave alone.")
    with st.expander("The matrices as a table"):
        components.table(sensitivity_table(found), key="compress_layers", alt="Loss with one matrix alone compressed")


def _seeds(result: Result, experiment: Experiment) -> None:
    del result
    if not any(item.depends_on_seed for item in experiment.techniques):
        st.caption("Nothing here sees training batches: each seed gives the same model. Times and resident sets still differ between runs.")
        return
    compress_runs.offer([replace(experiment, seed=seed) for seed in _SEEDS], label="Measure five seeds", key="compress_seeds")
    found = [one for one in compress_runs.results(experiment.model) if one.experiment.stages == experiment.stages]
    losses = [one.quality.loss for one in found]
    if len(losses) > 1:
        spread = f"{min(losses):.4f} to {max(losses):.4f}, mean {statistics.mean(losses):.4f}"
        st.markdown(f"Loss over {len(losses)} seeds: {spread}, standard deviation {statistics.stdev(losses):.4f}.")
        components.table(results_table(found), key="compress_seeds_table", alt="The same pipeline with each seed", height="content")


def _json(results: list[Result]) -> str:
    return json.dumps([result.to_json() for result in results], indent=1)


_DETAILS = {"Stages": _stages, "Weights": _weights, "Layer sensitivity": _sensitivity, "Seeds": _seeds}


def title(result: Result) -> str:
    """Return what a result is called in a sentence."""
    return f"**{name_of(result).replace('*', chr(92) + '*')}**"
