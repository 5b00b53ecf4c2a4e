"""The front end: starts the engine, sends it requests over time, gathers the tokens."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from dataclasses import dataclass, field

from profilemate_demo import process, truth, workload
from vllm.config import VllmConfig
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest, EngineCoreRequestType
from vllm.v1.engine.core import EngineCoreProc

# Requests in the engine at once, so that the queue stays short enough to be read.
IN_FLIGHT = 16
# Time for what is under way when the sending ends, in seconds.
GRACE_SEC = 5.0


@dataclass
class Plan:
    """What to serve, and for how long."""

    seconds: float
    requests: int | None
    seed: int
    gaps: bool
    ready_file: str | None
    output_tokens: str | None


@dataclass
class Answer:
    """What a request has got so far."""

    work: workload.Work
    tokens: list[int] = field(default_factory=list)
    end: str | None = None


class Server:
    """One run."""

    def __init__(self, config: VllmConfig, plan: Plan) -> None:
        self.config = config
        self.plan = plan
        self.answers: dict[str, Answer] = {}
        self.open: set[str] = set()
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # Not a daemon, because it has children of its own.
        self.engine = context.Process(
            target=EngineCoreProc.run_engine_core, args=(config, theirs), name="EngineCore", daemon=False
        )
        self.engine.start()
        theirs.close()

    def run(self) -> bool:
        """Serves; true if every request that was sent has been answered."""
        _, workers = self.connection.recv()
        self._report_ready(workers)
        began = time.monotonic()
        send_until = began + self.plan.seconds
        source = workload.generate(self.plan.seed, self.config.model_config.vocab_size, self.plan.gaps)
        pending, due = next(source), began
        sent = 0
        while True:
            now = time.monotonic()
            sending = now < send_until and (self.plan.requests is None or sent < self.plan.requests)
            if not sending and (not self.open or now >= send_until + GRACE_SEC):
                break
            full = len(self.open) >= IN_FLIGHT
            if sending and now >= due and not full:
                self._send(pending)
                sent += 1
                pending = next(source)
                due = now + (pending.delay_sec if self.plan.gaps else 0.0)
                continue
            wait = 0.05 if full or not sending else min(0.05, due - now)
            self._receive(max(0.0, wait))
        asked_for = self.plan.requests is None or sent == self.plan.requests
        return asked_for and not self.open

    def close(self) -> None:
        """Ends the children: by closing the pipe, and by force if that does not help."""
        try:
            self.connection.send((None, None))
        except OSError:
            pass
        process.join_or_kill(self.engine, seconds=5.0)
        self.connection.close()

    def write_tokens(self) -> None:
        """All tokens of the answered requests, in the order in which these were sent."""
        if self.plan.output_tokens is None:
            return
        with open(self.plan.output_tokens, "w", encoding="utf-8") as file:
            for answer in self.answers.values():
                if answer.end is not None:
                    line = {"request_id": answer.work.request_id, "end": answer.end, "tokens": answer.tokens}
                    file.write(json.dumps(line) + "\n")

    def _report_ready(self, workers: list[int]) -> None:
        if self.plan.ready_file is None:
            return
        text = json.dumps({"pid": os.getpid(), "engine_core": self.engine.pid, "workers": workers})
        with open(self.plan.ready_file + ".part", "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(self.plan.ready_file + ".part", self.plan.ready_file)

    def _send(self, work: workload.Work) -> None:
        self.answers[work.request_id] = Answer(work)
        self.open.add(work.request_id)
        features = []
        if work.picture is not None:
            name, at, length = work.picture
            features.append(MultiModalFeatureSpec(name, PlaceholderRange(at, length)))
        sampling = SamplingParams(max_tokens=work.max_tokens)
        request = EngineCoreRequest(work.request_id, work.prompt, sampling, time.time(), mm_features=features)
        self.connection.send((EngineCoreRequestType.ADD, request))

    def _receive(self, wait: float) -> None:
        if not self.connection.poll(wait):
            return
        _, outputs = self.connection.recv()
        for output in outputs.outputs:
            answer = self.answers[output.request_id]
            if answer.end is not None:
                continue  # Tokens that were on the way when the client hung up.
            answer.tokens.extend(output.new_token_ids)
            if output.finish_reason is not None:
                self._end(answer, str(output.finish_reason))
            elif answer.work.abort_after == len(answer.tokens):
                self.connection.send((EngineCoreRequestType.ABORT, [output.request_id]))
                self._end(answer, "abort")

    def _end(self, answer: Answer, reason: str) -> None:
        answer.end = reason
        self.open.discard(answer.work.request_id)


def serve(config: VllmConfig, plan: Plan) -> int:
    """Runs a server from start to end; returns the exit status."""
    server = Server(config, plan)
    try:
        complete = server.run()
    except KeyboardInterrupt:
        return 130
    except (EOFError, ConnectionResetError, BrokenPipeError):
        print("profilemate demo: the engine ended early", flush=True)
        return 1
    finally:
        server.close()
        truth.end()
    server.write_tokens()
    print(f"profilemate demo: {len(server.answers)} requests served", flush=True)
    return 0 if complete else 3
