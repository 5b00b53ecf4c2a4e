#!/usr/bin/env python3
"""Runs real vLLM on the CPU with features that a server may have: one engine, everything asked for in it at once.

  features.py --feature drafts --feature grammar --feature adapters      # a llama of characters
  features.py --feature images                                           # a tiny LLaVA
  features.py --feature speech                                           # a tiny Whisper
  features.py --feature offload                                          # KV cache offloaded to a second block pool

Takes the driver's options too. The last line on stdout is "RESULT " and a JSON object.
"""
import json
import re
import sys
import time

import driver
import encoders

LANGUAGE = ("drafts", "grammar", "adapters")
FEATURES = LANGUAGE + ("images", "speech", "offload")
REGEX = "[ab]{3}-[0-9]{4}"


def words(seed, count):
    """A prompt that repeats itself, so that drafts are found in it."""
    return [4 + (seed * 31 + 7 * (index % 9)) % 90 for index in range(count)]


def language(a, features):
    """Requests to a llama: engine arguments, and for each request (prompt, sampling arguments, adapter)."""
    from vllm.sampling_params import StructuredOutputsParams
    arguments = {"model": encoders.llama()}
    requests = [({"prompt_token_ids": words(index, 40)}, {}, None) for index in range(a.requests)]
    if "drafts" in features:
        arguments["speculative_config"] = {
            "method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 1}
    if "grammar" in features:
        arguments["structured_outputs_config"] = {"backend": "xgrammar", "disable_any_whitespace": True}
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
                  "additionalProperties": False}
        for index in range(a.requests):
            bound = StructuredOutputsParams(json=schema) if index % 2 else StructuredOutputsParams(regex=REGEX)
            more = {"structured_outputs": bound, "ignore_eos": False}
            requests.append(({"prompt_token_ids": words(100 + index, 20)}, more, None))
    if "adapters" in features:
        from vllm.lora.request import LoRARequest
        arguments.update(enable_lora=True, max_loras=2, max_lora_rank=8)
        for index in range(a.requests):
            number = 1 + index % 2
            adapter = LoRARequest("adapter-%d" % number, number, encoders.adapter(number))
            requests.append(({"prompt_token_ids": words(200 + index, 20)}, {}, adapter))
    return arguments, requests


def images(a):
    """Each request shows an image of 16 tokens; every third shows one that was shown shortly before."""
    from PIL import Image
    arguments = {"model": encoders.llava(), "enable_prefix_caching": False, "limit_mm_per_prompt": {"image": 2}}
    requests = []
    for index in range(a.requests):
        shown = [index - index % 3 // 2] + ([1000 + index] if index % 4 == 0 else [])
        pictures = [Image.new("RGB", (64, 64), (17 * one % 256, 31 * one % 256, 91 * one % 256)) for one in shown]
        prompt = words(index, 5) + [encoders.IMAGE] * len(pictures) + words(index, 3)
        data = {"image": pictures}
        requests.append(({"prompt_token_ids": prompt, "multi_modal_data": data}, {}, None))
    return arguments, requests


def speech(a):
    import numpy
    path, begin = encoders.whisper()
    arguments = {"model": path, "limit_mm_per_prompt": {"audio": 1}}
    requests = []
    for index in range(a.requests):
        audio = numpy.sin(numpy.arange(16000) * (0.01 + 0.003 * (index - index % 3 // 2))).astype(numpy.float32)
        prompt = {"prompt_token_ids": begin, "multi_modal_data": {"audio": (audio, 16000)}}
        requests.append((prompt, {}, None))
    return arguments, requests


def offload(a):
    """The KV cache's blocks are copied to a second pool, which is too small too, and come back from it when prompts come
    again, the latest first.
    """
    config = {"kv_connector": "HostOffload", "kv_connector_module_path": "host_offload", "kv_role": "kv_both",
              "kv_connector_extra_config": {"cpu_bytes_to_use": 32 * 32 * 1024}}
    arguments = {"model": encoders.llama(), "kv_transfer_config": config}
    prompts = [words(index, 100) for index in range(a.requests)]
    return arguments, [({"prompt_token_ids": prompt}, {}, None) for prompt in prompts + prompts[::-1]]


def well_formed(token_ids, sampling):
    """Whether an output under a grammar is what it asks for."""
    text = "".join(encoders.character(token) or "" for token in token_ids)
    bound = sampling["structured_outputs"]
    if bound.regex:
        return re.fullmatch(bound.regex, text) is not None
    return json.loads(text) in ({"ok": True}, {"ok": False})


def run(a):
    began = time.time()
    from vllm import LLM, SamplingParams
    features = a.feature
    if set(features) <= set(LANGUAGE):
        arguments, requests = language(a, features)
    elif len(features) == 1:
        arguments, requests = {"images": images, "speech": speech, "offload": offload}[features[0]](a)
    else:
        raise SystemExit("features.py: these are features of different models")
    a.tokenizer = True
    llm = LLM(disable_log_stats=False, **{**driver.engine_kwargs(a), **arguments})
    load = time.time() - began
    driver.touch(a.ready_file)
    common = {"max_tokens": a.max_tokens, "ignore_eos": True, "temperature": 0.0, "detokenize": False}
    prompts = [prompt for prompt, _, _ in requests]
    sampling = [SamplingParams(**{**common, **more}) for _, more, _ in requests]
    adapters = [adapter for _, _, adapter in requests]
    more = {"lora_request": adapters} if any(adapters) else {}
    outputs, tokens, ok = 0, 0, True
    for _ in range(a.rounds):
        for output, (_, own, _) in zip(llm.generate(prompts, sampling, use_tqdm=False, **more), requests):
            ids = list(output.outputs[0].token_ids)
            outputs, tokens = outputs + 1, tokens + len(ids)
            if "structured_outputs" in own:
                ids = [token for token in ids if token != 2]
                ok = ok and well_formed(ids, own)
            else:
                ok = ok and len(ids) == a.max_tokens
    counts = driver.metrics(llm)

    def count(name):
        rows = counts.get("vllm:" + name)
        return sum(row["value"] for row in rows) if rows else None
    names = ("spec_decode_num_drafts", "spec_decode_num_draft_tokens", "spec_decode_num_accepted_tokens",
             "mm_cache_queries", "mm_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits",
             "num_preemptions")
    return ok, {"features": features, "ok": ok, "requests": outputs, "output_tokens": tokens, "load_s": round(load, 2),
                **{name: count(name) for name in names}}


def main():
    p = driver.parser(__doc__)
    p.add_argument("--feature", action="append", choices=FEATURES, required=True)
    a = p.parse_args()
    driver.prepare(a)
    ok, result = run(a)
    print("RESULT " + json.dumps(result), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
