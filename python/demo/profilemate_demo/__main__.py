"""`python -m profilemate_demo`: see `--help`."""

import argparse
import signal
import sys
import time

OLDEST = (3, 10)
# What starting and ending may take on top of serving, in seconds.
MARGIN_SEC = 60.0


def parse(arguments):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m profilemate_demo",
        description="A small server in the shape of vLLM that serves itself requests.",
    )
    add = parser.add_argument
    add("--seconds", type=float, help="send requests for so long (default 8; 120 with --requests)")
    add("--requests", type=int, help="send so many requests, and end when they are answered")
    add("--seed", type=int, default=0, help="other requests for another number (default 0)")
    add("--blocks", type=int, default=64, help="blocks of key-value memory, of 16 tokens each (default 64)")
    add("--max-num-seqs", type=int, default=8, help="requests running at once (default 8)")
    add("--max-tokens-per-step", type=int, default=64, help="tokens computed in one step (default 64)")
    add("--workers", type=int, default=1, choices=range(1, 9), help="worker processes (default 1)")
    add("--no-gap", action="store_true", help="no pauses: the next request comes as soon as there is room")
    add("--print-truth", metavar="FILE", help="append the true values of each step to FILE, as JSON lines")
    add("--output-tokens", metavar="FILE", help="write all generated tokens to FILE, as JSON lines")
    add("--ready-file", metavar="FILE", help="write the process ids to FILE once the engine is up")
    add("--end-with-stdin", action="store_true", help="end when standard input is closed")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 8.0 if options.requests is None else 120.0
    # The longest request (80 + 24 + 90 + 120 tokens) must fit, or it would wait for ever.
    if options.blocks < 24:
        parser.error("--blocks must be at least 24")
    if options.max_num_seqs < 1 or options.max_tokens_per_step < 1 or not 0 < options.seconds <= 86400:
        parser.error("limits must be positive, and --seconds at most 86400")
    return options


def main(arguments):
    """Returns the exit status."""
    options = parse(arguments)
    # Only now, because older versions of Python cannot read these.
    from profilemate_demo import process, server
    from vllm.config import CacheConfig, ModelConfig, ParallelConfig, SchedulerConfig, VllmConfig

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    deadline = time.monotonic() + options.seconds + MARGIN_SEC
    process.end_by(deadline)
    if options.end_with_stdin:
        process.end_with_stdin()
    config = VllmConfig(
        model_config=ModelConfig(seed=options.seed),
        cache_config=CacheConfig(num_gpu_blocks=options.blocks),
        scheduler_config=SchedulerConfig(
            max_num_seqs=options.max_num_seqs, max_num_batched_tokens=options.max_tokens_per_step
        ),
        parallel_config=ParallelConfig(tensor_parallel_size=options.workers),
        truth_path=options.print_truth,
        deadline=deadline,
    )
    plan = server.Plan(
        seconds=options.seconds,
        requests=options.requests,
        seed=options.seed,
        gaps=not options.no_gap,
        ready_file=options.ready_file,
        output_tokens=options.output_tokens,
    )
    return server.serve(config, plan)


if __name__ == "__main__":
    if sys.version_info < OLDEST:
        sys.stderr.write(
            "profilemate demo: Python %d.%d or newer is needed, this is %d.%d\n" % (OLDEST + sys.version_info[:2])
        )
        sys.exit(2)
    sys.exit(main(sys.argv[1:]))
