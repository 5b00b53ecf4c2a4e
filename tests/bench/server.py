"""A real vLLM for the bench: one engine's life, in rounds.

Takes commands on stdin, one a line: `round N` generates for N requests. Answers with a line on stdout that begins with
`REPLY ` (vLLM writes there too): {"tokens": ..., "seconds": ..., "steps": ...}.
"""
import argparse
import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vllm"))


def steps(llm):
    """Engine steps so far, by vLLM's own metric."""
    for metric in llm.get_metrics():
        if metric.name.startswith("vllm:iteration_tokens"):
            return metric.count
    return 0


def reply(answer):
    print("REPLY " + json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--max-num-seqs", type=int, default=16)
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import models
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=models.ensure_model("llama", layers=arguments.layers), load_format="dummy", max_model_len=512,
        max_num_seqs=arguments.max_num_seqs, block_size=32, skip_tokenizer_init=True, enforce_eager=True,
        disable_log_stats=False,
    )
    sampling = SamplingParams(max_tokens=arguments.max_tokens, ignore_eos=True, detokenize=False, temperature=0.0)
    reply({"ready": True})
    number = 0
    for line in sys.stdin:
        requests = int(line.split()[1])
        number += 1
        prompts = [
            {"prompt_token_ids": [(i * 7919 + number * 104729 + j * 31) % 1000 + 3 for j in range(20 + i % 16)]}
            for i in range(requests)
        ]
        before, begin = steps(llm), time.perf_counter()
        results = llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - begin
        tokens = sum(len(result.outputs[0].token_ids) for result in results)
        assert tokens == requests * arguments.max_tokens, tokens
        reply({"tokens": tokens, "seconds": seconds, "steps": steps(llm) - before})


if __name__ == "__main__":
    main()
