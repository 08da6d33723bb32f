"""The worker of the lab with models of a few thousand parameters and three documents; some names misbehave."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from profiler.errors import SpecError
from profiler.jobs.lab_worker import main
from tests.compression.tasks import TinyTask, load


def load_or_not(name: str) -> TinyTask:
    if name == "refused":
        raise SpecError("This model is not here. Take another.")
    if name == "broken":
        raise RuntimeError("the weights are not what they were")
    if name == "crashes":
        os.abort()
    if name == "slow":
        time.sleep(60)
    return load(name)


if __name__ == "__main__":
    question = json.loads((Path(sys.argv[1]) / "question.json").read_text())
    given = os.environ.get("HEADROOM_TEST_ANSWER")
    if question["kind"] == "text" and given is None:
        (Path(sys.argv[1]) / "progress.json").write_text(json.dumps({"phase": "counting words", "share": 0.25}))
        time.sleep(60)
    if given is not None:
        (Path(sys.argv[1]) / "answer.json").write_text(Path(given).read_text())
        os.abort()
    sys.exit(main(sys.argv[1:], load_or_not))
