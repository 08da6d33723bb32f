"""The named models: one JSON file a family beside this module -> `CATALOGUE`.

The files hold what the models' published ``config.json`` says that decides memory, so that nothing is fetched from a hub.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from profiler.errors import unknown_name
from profiler.models.config import ConfigFacts, Head, read_facts
from profiler.spec import Model

_TINY_SOURCE = "Made for this project, after the family's published models."


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One named model."""

    name: str
    family: str
    label: str
    """The name as its makers write it."""
    config: dict[str, Any]
    """What a transformers ``config.json`` says, ``model_type`` included."""
    facts: ConfigFacts
    num_parameters: int
    """As published: encoders are counted without the head that masked language modelling adds."""
    num_parameters_with_head: int
    """As built and run by the workloads; tied weights count once."""
    tiny: bool
    """Made for this project to run on a laptop in about a second a step; not a published model."""
    source: str
    hub_ids: tuple[str, ...]
    """Names on the Hugging Face hub of models of exactly these sizes: the source's first, then its variants and older spellings."""

    @property
    def head(self) -> Head:
        """What sits on the model."""
        return self.facts.head

    @property
    def max_positions(self) -> int | None:
        """Tokens that a sequence may have at most; None where the family sets no limit."""
        return self.facts.max_positions


def entry(name: str) -> CatalogueEntry:
    """Return the catalogue's entry of this name, or of this name on the hub.

    Raises:
        SpecError: the name is not in the catalogue.
    """
    found = _find(name)
    if found is None:
        raise unknown_name("model", name, CATALOGUE, "`models` lists all names; a folder with a config.json works too.")
    return found


def is_known(name: str) -> bool:
    """Return whether `entry` knows this name."""
    return _find(name) is not None


def config_of(model: Model) -> dict[str, Any]:
    """Return the configuration of a model: its own, or the catalogue's.

    Raises:
        SpecError: the name is not in the catalogue.
    """
    if model.config is not None:
        return dict(json.loads(model.config))
    return dict(entry(model.name).config)


def facts_of(model: Model) -> ConfigFacts:
    """Return the sizes of a model, without building it.

    Raises:
        SpecError: the name is not in the catalogue, or the configuration is impossible.
    """
    if model.config is None:
        return entry(model.name).facts
    return read_facts(config_of(model))


def _find(name: str) -> CatalogueEntry | None:
    return CATALOGUE.get(name.lower()) or _OF_HUB_ID.get(name.lower())


def _load() -> dict[str, CatalogueEntry]:
    entries: dict[str, CatalogueEntry] = {}
    for path in sorted(files(__package__).iterdir(), key=lambda path: path.name):
        if path.name.endswith(".json"):
            entries |= _load_family(json.loads(path.read_text(encoding="utf-8")))
    return entries


def _load_family(data: dict[str, Any]) -> dict[str, CatalogueEntry]:
    return {name: _read_entry(name, model, data) for name, model in data["models"].items()}


def _read_entry(name: str, model: dict[str, Any], family: dict[str, Any]) -> CatalogueEntry:
    config = {**family["shared"], **model["config"]}
    tiny = model.get("tiny", False)
    return CatalogueEntry(
        name=name,
        family=family["family"],
        label=model["label"],
        config=config,
        facts=read_facts(config, name),
        num_parameters=model["num_parameters"],
        num_parameters_with_head=model.get("num_parameters_with_head", model["num_parameters"]),
        tiny=tiny,
        source=_TINY_SOURCE if tiny else model.get("source") or family["source"],
        hub_ids=tuple(model.get("hub_ids", ())),
    )


CATALOGUE: dict[str, CatalogueEntry] = _load()
_OF_HUB_ID = {hub_id.lower(): item for item in CATALOGUE.values() for hub_id in item.hub_ids}
