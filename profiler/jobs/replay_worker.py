"""The worker that answers questions about long recordings: ``python -m profiler.jobs.replay_worker``.

It reads requests from its standard input and writes messages to its standard output, pickled; only the server that started it is at the
other ends. While it is at work it tells its progress some times a second. The recording of the last request is kept for the next one.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from typing import IO

from profiler.analysis.blocks import Lane
from profiler.analysis.replays import Replays
from profiler.analysis.timeline import Timeline
from profiler.errors import HeadroomError
from profiler.jobs.replayer import Answer, Message, Refusal, Request
from profiler.storage import read_recording

TOLD_SECONDS = 0.2
IDLE_SECONDS = 600.0
"""After so long without a request it ends, and its memory is free again."""


class Worker:
    """Answers requests one after another.

    Args:
        requests: where they come from.
        messages: where what it says goes.
    """

    def __init__(self, requests: IO[bytes], messages: IO[bytes]) -> None:
        self._requests, self._messages = requests, messages
        self._lock = threading.Lock()
        self._of: tuple[str, Lane | None] | None = None
        self._replays: Replays | None = None
        self._num_steps = 0
        self._expected: int | None = None
        """Steps that the answer takes; None while nothing is asked."""
        self._idle_since = time.monotonic()

    def run(self) -> None:
        """Answer until nobody asks any more."""
        threading.Thread(target=self._tell, daemon=True).start()
        while True:
            try:
                request: Request = pickle.load(self._requests)  # noqa: S301  # of the server that started this process
            except EOFError:
                return
            self._num_steps, self._expected = 0, 1
            message = self._answered(request)
            self._expected, self._idle_since = None, time.monotonic()
            self._say(message)

    def _answered(self, request: Request) -> Answer | Refusal:
        try:
            replays = self._opened(request)
            self._expected = max(request.question.topic.num_replays * replays.num_steps, 1)
            return Answer(replays.answer(request.question))
        except HeadroomError as error:
            return Refusal(str(error), is_bug=False)
        except Exception as error:  # noqa: BLE001  # told to the user, with the traceback kept beside it
            traceback.print_exc()
            return Refusal(f"{type(error).__name__}: {error}".splitlines()[0][:1000], is_bug=True)

    def _opened(self, request: Request) -> Replays:
        wanted = (request.recording_id, request.lane)
        if self._of != wanted or self._replays is None:
            self._of = self._replays = None  # the memory of the one before is needed for this
            recording = read_recording(request.path)
            self._replays = Replays(recording, Timeline.of(recording, lane=request.lane), self._count)
            self._of = wanted
        return self._replays

    def _count(self, num_steps: int) -> None:
        self._num_steps += num_steps

    def _tell(self) -> None:
        """Say how far things are, for as long as the process lives; end it when nobody listens or asks any more."""
        while True:
            time.sleep(TOLD_SECONDS)
            expected = self._expected
            if expected is not None:
                self._say(min(self._num_steps / expected, 1.0))
            elif time.monotonic() - self._idle_since > IDLE_SECONDS:
                os._exit(0)

    def _say(self, message: Message) -> None:
        try:
            with self._lock:
                pickle.dump(message, self._messages, pickle.HIGHEST_PROTOCOL)
                self._messages.flush()
        except OSError:
            os._exit(1)  # the server is gone


def main() -> int:
    """Serve the process that started this one, and return the exit code."""
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no message
    Worker(sys.stdin.buffer, messages).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
