"""The worker of experiments with models of a few thousand parameters; some names misbehave."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from profiler.errors import SpecError
from profiler.jobs.experiment_worker import main
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
    experiment = json.loads((Path(sys.argv[1]) / "experiment.json").read_text())
    if experiment["model"] == "crashes-after":
        answer = Path(os.environ["HEADROOM_TEST_ANSWER"]).read_text()
        (Path(sys.argv[1]) / "answer.json").write_text(answer)
        os.abort()
    sys.exit(main(sys.argv[1:], load_or_not))
