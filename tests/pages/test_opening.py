"""What people bring to Start: snapshots by drop, by path and by folder, and the text of an out-of-memory error."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from streamlit import config

from pages.shared import opening, serving
from profiler.analysis.summary import summarize
from profiler.errors import JobFailed
from profiler.recording import Provenance
from profiler.spec import Model
from profiler.storage import RunStore, read_recording
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, block, segment, write
from tests.pages.conftest import Open, texts

MESSAGE = (
    "CUDA out of memory. Tried to allocate 394.00 MiB. GPU 0 has a total capacity of 23.69 GiB of which 210.00 MiB is free. Of the"
    " allocated memory 21.00 GiB is allocated by PyTorch, and 2.00 GiB is reserved by PyTorch but unallocated. /data/ada/secret/train.py"
)
TRAINING = pickle.dumps(snapshots.training())


@pytest.mark.parametrize(("name", "content"), [("a.pickle", TRAINING), ("a.pkl", TRAINING), ("a.pickle.gz", gzip.compress(TRAINING))])
def test_a_dropped_snapshot_is_kept_and_shown_in_timeline(opened: Open, home: Path, name: str, content: bytes) -> None:
    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value((name, content, "")).run()

    (run,) = RunStore(home).list()
    assert run.metadata.provenance is Provenance.IMPORTED
    assert run.metadata.title == f"{name} · CUDA snapshot"
    assert app.title[0].value == "Timeline"
    assert app.query_params["recording"] == run.metadata.id
    assert app.metric[0].value == "16.0 MiB"
    assert sorted(path.name for path in home.iterdir()) == ["runs"], "nothing is left behind"


def test_several_dropped_files_are_the_ranks_of_one_run(opened: Open, home: Path) -> None:
    app = opened("start")
    files = [(f"run_rank{rank}.pickle", TRAINING, "") for rank in (1, 0)]
    app.file_uploader(key="start_upload_0").set_value(files).run()

    (run,) = RunStore(home).list()
    assert run.metadata.title == "Uploaded files · 2 ranks · CUDA snapshots"
    assert app.segmented_control(key="linked_memory").options == ["GPU 0", "GPU 0, rank 1"]


def test_a_snapshot_opens_by_its_path(opened: Open, home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.pickle", snapshots.training())

    app = opened("start")
    app.text_input(key="start_path").set_value(f'"{path}" ')
    app.button[0].click().run()

    assert app.title[0].value == "Timeline"
    assert RunStore(home).list()[0].metadata.title == "mine.pickle · CUDA snapshot"


def test_a_folder_opens_with_one_rank_a_file(opened: Open, home: Path, tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    for rank in range(2):
        write(tmp_path / "job" / f"rank{rank}.pickle", snapshots.training())

    app = opened("start")
    app.text_input(key="start_path").set_value(str(tmp_path / "job"))
    app.button[0].click().run()

    assert RunStore(home).list()[0].metadata.title == "job · 2 ranks · CUDA snapshots"


def test_the_model_that_is_named_tells_parameters_among_older_blocks(
    opened: Open, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def sizes(model: Model, number_format: str) -> list[int]:
        asked.append((model.name, number_format))
        return [MIB]

    monkeypatch.setattr(opening, "parameter_bytes", sizes)
    older = [block(BASE + place * MIB, MIB, MIB) for place in range(2)]
    path = write(tmp_path / "old.pickle", snapshots.snapshot([segment(BASE, 2 * MIB, older)], [[]]))

    app = opened("start")
    assert app.selectbox(key="start_model_format").disabled
    app.selectbox(key="start_model").set_value("gpt2").run()
    app.selectbox(key="start_model_format").set_value("bfloat16").run()
    app.text_input(key="start_path").set_value(str(path))
    app.button[0].click().run()

    assert asked[0] == ("gpt2", "float32")
    assert asked[-1] == ("gpt2", "bfloat16")
    (run,) = RunStore(home).list()
    assert summarize(read_recording(run.path))["categories_at_peak"] == {"PARAMETER": MIB, "OPTIMIZER_STATE": MIB}


def test_a_model_that_cannot_be_looked_at_is_said_and_nothing_is_opened_without_it(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Model, number_format: str) -> list[int]:
        raise JobFailed("The model could not be inspected.")

    monkeypatch.setattr(opening, "parameter_bytes", fail)

    app = opened("start")
    app.selectbox(key="start_model").set_value("gpt2").run()

    assert app.error[0].value == "The model could not be inspected."
    assert not app.file_uploader
    assert "This machine" in texts(app)


class Hostile:
    """Would make a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_snapshot_that_would_run_something_is_refused_with_a_sentence(opened: Open, home: Path, tmp_path: Path) -> None:
    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value(("bad.pickle", pickle.dumps(Hostile(tmp_path / "executed")), "")).run()

    (error,) = app.error
    assert "bad.pickle" in error.value
    assert "mkdir" in error.value
    assert not (tmp_path / "executed").exists()
    assert RunStore(home).list() == []
    assert app.title[0].value == "Headroom"
    assert "This machine" in texts(app), "the rest of the page is still there"


@pytest.mark.parametrize("name", ["../../etc/x.pickle", ".pickle", "a" * 300 + ".pickle", "a\nb.pickle", "<script>.pickle"])
def test_a_file_is_put_aside_under_a_harmless_name(opened: Open, home: Path, name: str) -> None:
    app = opened("start")
    app.file_uploader(key="start_upload_0").set_value((name, TRAINING, "")).run()

    title = RunStore(home).list()[0].metadata.title
    assert title.endswith("pickle · CUDA snapshot")
    assert not set(title) & set("/\\<>\n")


@pytest.mark.parametrize(("text", "says"), [("/no/such/file.pickle", "No such file"), ("a\x07b", "no path has")])
def test_a_path_that_cannot_be_opened_is_refused(opened: Open, text: str, says: str) -> None:
    app = opened("start")
    app.text_input(key="start_path").set_value(text)
    app.button[0].click().run()

    assert says in app.error[0].value


@pytest.fixture
def served_to_others() -> Any:
    """A server that answers to a name of its own."""
    before = {name: config.get_option(name) for name in ("server.allowedHosts", "server.maxUploadSize")}
    config.set_option("server.allowedHosts", ["memory.example.org"])
    yield
    for name, value in before.items():
        config.set_option(name, value)


def test_a_server_for_one_user_takes_two_gibibytes_and_paths(opened: Open) -> None:
    config.get_config_options(force_reparse=True)

    assert serving.for_one_user()
    assert config.get_option("server.maxUploadSize") == serving.ONE_USER_MIB == 2048
    assert opened("start").text_input(key="start_path")


@pytest.mark.usefixtures("served_to_others")
def test_a_server_for_others_takes_less_and_no_paths(opened: Open) -> None:
    config.set_option("server.maxUploadSize", serving.ONE_USER_MIB)

    app = opened("start")

    assert config.get_option("server.maxUploadSize") == serving.SHARED_MIB
    assert not [field for field in app.text_input if field.key == "start_path"]


@pytest.mark.usefixtures("served_to_others")
def test_a_limit_that_was_set_by_hand_stays(opened: Open) -> None:
    config.set_option("server.maxUploadSize", 700)

    opened("start")

    assert config.get_option("server.maxUploadSize") == 700


def test_a_pasted_message_is_explained_and_can_be_copied_without_paths(opened: Open) -> None:
    app = opened("start")
    app.text_area(key="oom_text").set_value(MESSAGE).run()

    said = texts(app)
    assert "394 MiB" in said
    assert "expandable_segments:True" in said
    (markdown,) = app.code
    assert "394 MiB" in markdown.value
    assert "ada" not in markdown.value
    assert "secret" not in markdown.value


def test_the_model_names_the_tensor_that_was_asked_for(opened: Open) -> None:
    app = opened("start")
    app.selectbox(key="oom_model").set_value("gpt2")
    app.text_area(key="oom_text").set_value(MESSAGE).run()

    assert "logits" in texts(app)


def test_the_batch_and_its_tokens_tell_the_tensors_shape(opened: Open) -> None:
    app = opened("start")
    assert not app.number_input, "they are of a model"
    app.text_area(key="oom_text").set_value(MESSAGE)
    app.selectbox(key="oom_model").set_value("gpt2").run()
    assert "logits of 4,096 tokens" in texts(app)

    app.number_input(key="oom_batch").set_value(4).run()
    assert "logits of 4,096 tokens" in texts(app), "nothing is said of a length that nobody gave"
    app.number_input(key="oom_seq").set_value(1024).run()

    # 4 x 1,024 x 50,257 numbers of 2 bytes are 392.6 MiB, which the driver is asked for as 394 MiB.
    assert "bfloat16 or float16 logits, 4 x 1,024 x 50,257" in texts(app)
    assert "4 x 1,024 x 50,257" in app.code[0].value


def test_a_text_without_a_message_is_refused_with_a_sentence(opened: Open) -> None:
    app = opened("start")
    app.text_area(key="oom_text").set_value("all is well").run()

    assert "no out-of-memory message" in app.error[0].value
