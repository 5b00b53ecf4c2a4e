"""True values from inside, to compare a tracer's output with. Off unless a file is given.

One JSON object a line. `e` tells what: `schedule`, `preempt`, `evict`, `execute_model`, `route`, `encode`, `finish`. `t` is the wall
clock in seconds, `ts_ns` CLOCK_MONOTONIC, `dur_us` a duration in microseconds, `pid` the process.
"""

from __future__ import annotations

import json
import os
import time

# Read before each event, so that nothing is computed when nothing is written.
enabled = False
_file = None
_steps = 0


def begin(path: str | None) -> None:
    """Appends to `path` from now on. Several processes may; each line is one write."""
    global enabled, _file
    if path is not None:
        _file = open(path, "ab", buffering=0)
        enabled = True


def end() -> None:
    """Writes no more."""
    global enabled, _file
    enabled = False
    if _file is not None:
        _file.close()
        _file = None


def schedule(scheduler, output, duration_ns: int) -> None:
    global _steps
    _steps += 1
    manager = scheduler.kv_cache_manager
    _write(
        e="schedule",
        dur_us=duration_ns / 1e3,
        step=_steps,
        total_num_scheduled_tokens=output.total_num_scheduled_tokens,
        n_sched_reqs=len(output.num_scheduled_tokens),
        running=len(scheduler.running),
        waiting=len(scheduler.waiting),
        usage=manager.block_pool.get_usage(),
        free_blocks=manager.block_pool.free_block_queue.num_free_blocks,
        num_gpu_blocks=manager.block_pool.num_gpu_blocks,
        new=len(output.scheduled_new_reqs),
        cached=len(output.scheduled_cached_reqs.req_ids),
        preempted=sorted(output.preempted_req_ids or ()),
        finished=len(output.finished_req_ids),
    )


def preempt(request) -> None:
    _write(e="preempt", req=request.request_id, n=request.num_preemptions)


def evict(block) -> None:
    _write(e="evict", block=block.block_id)


def execute_model(output, result, duration_ns: int) -> None:
    _write(
        e="execute_model",
        dur_us=duration_ns / 1e3,
        tokens=output.total_num_scheduled_tokens,
        ret=type(result).__name__,
    )


def route(layer: str, ids: list[list[int]]) -> None:
    _write(e="route", layer=layer, ids=ids)


def finish(request) -> None:
    _write(e="finish", req=request.request_id, status=request.status.name, tokens=request.num_output_tokens)


def _write(**event) -> None:
    event.update(t=time.time(), ts_ns=time.monotonic_ns(), pid=os.getpid())
    _file.write(json.dumps(event).encode() + b"\n")
