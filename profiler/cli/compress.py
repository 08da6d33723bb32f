"""``compress``: what pruning, quantization, sparsity and coding give on a model of the lab, measured."""

from __future__ import annotations

import argparse
from typing import Any

from profiler.cli import lab_default, lab_facts
from profiler.cli.command import DONE, Commands, add_command, print_json, require, show_progress
from profiler.compression import lab
from profiler.compression.experiment import Experiment
from profiler.compression.products import Products
from profiler.compression.registry import PIPELINES, TECHNIQUES
from profiler.compression.result import Result
from profiler.jobs.experiments import WORKERS, measure_in_worker
from profiler.jobs.facts import products_asked, text_asked
from profiler.jobs.lab_runs import Asked, Found, LabRuns, LabStatus, answered
from profiler.units import exact_bytes, format_bytes, format_duration_us


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "compress", _run, "measure what a technique makes of a model's bytes, time and quality")
    parser.add_argument("--list", action="store_true", help="list models, techniques and pipelines; measure nothing")
    parser.add_argument("--text", action="store_true", help="measure documents as sparse counts and as dense vectors instead of a model")
    parser.add_argument(
        "--break-even", action="store_true", help="tell from how many zeros on sparse formats take fewer bytes and less time than dense"
    )
    shape = Products()
    for name, what in (("rows", "of the matrix"), ("columns", "of the matrix"), ("inputs", "vectors it is multiplied with at once")):
        default = getattr(shape, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"with --break-even: {what} (default: {default})")
    parser.add_argument("--model", default="lab", help="a model of the lab (default: lab)")
    parser.add_argument(
        "--technique", action="append", default=[], metavar="NAME[:key=value,...]", help="repeat it for several, in their order"
    )
    parser.add_argument("--all", action="store_true", help="measure the default lab: each technique and each pipeline once")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"with --all: experiments at a time (default: {WORKERS})")
    parser.add_argument("--amount", metavar="X", help="for the first technique that takes one, such as the share to prune or the bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-layer", action="store_true", help="also apply the first technique to each matrix alone")
    parser.add_argument("--fresh", action="store_true", help="measure even if the store holds an equal experiment")


def _run(options: argparse.Namespace) -> int:
    if options.list:
        _print_list(options.json)
        return DONE
    if options.text:
        lab_facts.print_text(_found(text_asked(), options.fresh), options.json)
        return DONE
    if options.break_even:
        products = Products(rows=options.rows, columns=options.columns, inputs=options.inputs)
        times = _found(products_asked(products), options.fresh)
        lab_facts.print_break_even(products, times, options.json)
        return DONE
    if options.all:
        require("torch", "compress")
        return lab_default.run(options.model, options.workers, fresh=options.fresh, as_json=options.json, progress=_tell)
    experiment = Experiment.of(options.model, tuple(options.technique), options.amount, options.seed, by_layer=options.by_layer)
    for library in ("torch", "transformers"):
        require(library, "compress")
    result = measure_in_worker(experiment, fresh=options.fresh, progress=_tell)
    show_progress()
    if options.json:
        data = result.to_json()
        print_json(result.facts() | {name: data[name] for name in ("stages", "layers", "versions")})
    else:
        _print(result)
    return DONE


def _found(asked: Asked[Found], fresh: bool) -> Found:
    require("torch", "compress")
    found = answered(LabRuns(), asked, fresh=fresh, progress=_tell)
    show_progress()
    return found


def _tell(status: LabStatus[Any]) -> None:
    show_progress(f"{status.state} · {status.share:.0%} · {status.phase}")


def _print(result: Result) -> None:
    quality, before = result.quality, result.baseline_quality
    print(f"{result.experiment.title}  [measured]")
    for name, text in (("held_bytes", "held in memory"), ("resident_bytes", "resident set"), ("file_bytes", "file")):
        after, was = getattr(result.size, name), getattr(result.baseline_size, name)
        print(f"  {text:<16} {format_bytes(after):>10}  {result.ratio(name):>6.3f} of {format_bytes(was)}  ({exact_bytes(after)})")
    print(f"  {'conversion peak':<16} {format_bytes(result.conversion_peak_bytes):>10}")
    times = [format_duration_us(seconds * 1e6) for seconds in (result.seconds, result.baseline_seconds)]
    ratio = result.seconds / result.baseline_seconds
    print(f"  {'forward pass':<16} {times[0]:>10}  {ratio:>6.2f} of {times[1]}, one thread{result.spread_phrase}")
    if result.wall_phrase:
        print(f"  {'':<16} {result.wall_phrase}")
    print(f"  {'loss':<16} {quality.loss:>10.4f}  {quality.loss - before.loss:>+.4f} nats per {result.unit}")
    print(f"  {'perplexity':<16} {quality.perplexity:>10.3f}  was {before.perplexity:.3f}")
    if result.per_byte_phrase:
        print(f"  {'':<16} {result.per_byte_phrase}")
    print(f"  {'accuracy':<16} {quality.accuracy:>10.1%}  was {before.accuracy:.1%}")
    if quality.bleu is not None and before.bleu is not None:
        print(f"  {'BLEU':<16} {quality.bleu:>10.2f}  was {before.bleu:.2f}")
    print(f"  {'agreement':<16} {result.agreement:>10.1%}  with the untouched model's choice")
    for stage in result.stages:
        sizes = f"held {format_bytes(stage.held_bytes)}, file {format_bytes(stage.file_bytes)}"
        control = f", control {stage.extra['control_loss']:.4f}" if "control_loss" in stage.extra else ""
        print(f"  after {stage.stage}: {sizes}, loss {stage.loss:.4f}{control}")
    for layer in sorted(result.layers, key=lambda layer: -layer.loss):
        print(f"  {layer.name} alone: loss {layer.loss:.4f}, {layer.loss - before.loss:+.4f}")
    for note in result.notes:
        print(f"Note: {note}")


def _print_list(as_json: bool) -> None:
    if as_json:
        print_json({"models": _models(), "techniques": _techniques(), "pipelines": _pipelines()})
        return
    for title, rows in (("Models", _models()), ("Techniques", _techniques()), ("Pipelines", _pipelines())):
        print(title)
        for row in rows:
            print(f"  {row['name']:<20} {row['label']}{'  ' + row['to_install'] if row.get('to_install') else ''}")


def _models() -> list[dict[str, Any]]:
    texts = ("name", "label", "explanation", "to_install")
    return [{name: getattr(item, name) for name in texts} | {"needs": list(item.needs)} for item in lab.MODELS.values()]


def _techniques() -> list[dict[str, Any]]:
    texts = ("name", "label", "promise", "explanation", "formula", "source", "amount", "to_install")
    return [
        {name: getattr(item, name) for name in texts}
        | {"kind": item.kind.value, "saves": item.saves.value, "needs": list(item.needs)}
        | {"parameters": [parameter.to_json() for parameter in item.parameters]}
        for item in TECHNIQUES.values()
    ]


def _pipelines() -> list[dict[str, Any]]:
    return [
        {"name": item.name, "label": item.label, "stages": list(item.stages), "explanation": item.explanation}
        for item in PIPELINES.values()
    ]
