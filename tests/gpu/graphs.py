#!/usr/bin/env python3
"""CUDA graphs of PyTorch on a real GPU, for `cargo xtask gpu-check`.

  graphs.py --out truth.json --ready FILE --go FILE [--replays 500]

Before --ready: one graph is captured, and its replays are timed while nobody traces. After --go: more graphs are
captured and replayed, each replay timed on the host and on the GPU (by CUDA events), and synchronised. What was done
is written to --out.
"""
import argparse
import json
import os
import statistics
import time

import torch

SIZES = [1, 2, 4, 8]


class Model:
    """A few matrix products, captured for one number of tokens."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.weights = [torch.randn(2048, 2048, device="cuda", dtype=torch.float16) for _ in range(8)]
        self.input = torch.randn(tokens, 2048, device="cuda", dtype=torch.float16)
        self.graph = torch.cuda.CUDAGraph()

    def forward(self):
        x = self.input
        for weight in self.weights:
            x = torch.relu(x @ weight)
        return x

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.forward()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            self.output = self.forward()

    def replay(self):
        self.graph.replay()


def timed(model, replays):
    """Median time of a replay on the host in nanoseconds, and of its work on the GPU in milliseconds."""
    host, gpu = [], []
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(replays):
        begin.record()
        before = time.perf_counter_ns()
        model.replay()
        host.append(time.perf_counter_ns() - before)
        end.record()
        end.synchronize()
        gpu.append(begin.elapsed_time(end))
    return statistics.median(host), statistics.median(gpu)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--ready", required=True)
    p.add_argument("--go", required=True)
    p.add_argument("--replays", type=int, default=500)
    o = p.parse_args()
    early = Model(16)
    early.capture()
    timed(early, 50)
    untraced = timed(early, o.replays)
    open(o.ready, "w").close()
    while not os.path.exists(o.go):
        time.sleep(0.05)
    traced = timed(early, o.replays)
    models = [Model(tokens) for tokens in SIZES]
    for model in models:
        model.capture()
    each = {model.tokens: timed(model, o.replays) for model in models}
    with open(o.out, "w") as out:
        json.dump({
            "torch": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name(),
            "replays": o.replays * (1 + len(models)), "captures": len(models),
            "host_ns_untraced": untraced[0], "host_ns_traced": traced[0],
            "gpu_ms_untraced": untraced[1], "gpu_ms_traced": traced[1],
            "each": {str(tokens): figures for tokens, figures in each.items()},
        }, out)  # fmt: skip


if __name__ == "__main__":
    main()
