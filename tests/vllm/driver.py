#!/usr/bin/env python3
"""Runs real vLLM on CPU with a tiny dummy-weight model, offline or as the OpenAI server.

Examples
  driver.py --model-kind llama --requests 40 --max-tokens 32
  driver.py --model-kind moe --requests 16
  driver.py --num-gpu-blocks 12 --max-num-seqs 8 --max-tokens 64   # KV pressure, preemptions
  driver.py --rounds 3 --prompt-mode distinct --num-gpu-blocks 40                 # prefix-cache evictions
  driver.py --serve --port 0 --requests 20                                        # OpenAI server, /metrics
  driver.py --serve --hold 30                                                     # keep serving for 30 s

The last line on stdout is "RESULT " and a JSON object. Exit code 0 only if every request finished.
Set PMREF_OUT (and put reference/ on PYTHONPATH, or pass --pmref DIR) to count vLLM's own calls.
"""
import argparse
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))


def parser(description=__doc__):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model-kind", choices=["llama", "moe", "qwenmoe"], default="llama")
    p.add_argument("--model", help="a model folder, in place of --model-kind")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--experts", type=int, default=8)
    p.add_argument("--topk", type=int, default=2)
    p.add_argument("--requests", type=int, default=16)
    p.add_argument("--rounds", type=int, default=1, help="offline: generate() calls; serve: waves")
    p.add_argument("--stop-file", help="offline: no further round once this file is there; serve: ends --hold")
    p.add_argument("--start-file", help="serve: the first request waits until this file is there")
    p.add_argument("--round-gap", type=float, default=0.0, help="seconds between rounds")
    p.add_argument("--prompt-len", type=int, default=20)
    p.add_argument("--prompt-step", type=int, default=1, help="request i has prompt_len + i*step tokens")
    p.add_argument("--prompt-mode", choices=["distinct", "shared", "repeat"], default="distinct",
                   help="distinct: all prompts differ, in each round; shared: one common prefix; "
                        "repeat: each round repeats the same distinct prompts")
    p.add_argument("--max-tokens", type=int, default=32)
    p.add_argument("--num-gpu-blocks", type=int, help="num_gpu_blocks_override (KV pressure)")
    p.add_argument("--block-size", type=int, default=32, help="CPU attention wants a multiple of 32; 0: vLLM's default (128)")
    p.add_argument("--max-num-seqs", type=int, default=16)
    p.add_argument("--max-num-batched-tokens", type=int)
    p.add_argument("--max-model-len", type=int, default=512)
    p.add_argument("--no-prefix-caching", action="store_true")
    p.add_argument("--compile", action="store_true", help="do not pass enforce_eager")
    p.add_argument("--async-scheduling", choices=["default", "on", "off"], default="default")
    p.add_argument("--mrv2", choices=["default", "0", "1"], default="default", help="VLLM_USE_V2_MODEL_RUNNER")
    p.add_argument("--mrv2-interpret", action="store_true",
                   help="run Model Runner V2 on CPU with Triton's interpreter (slow; implies --mrv2 1)")
    p.add_argument("--start-method", choices=["default", "fork", "spawn"], default="default")
    p.add_argument("--in-process", action="store_true", help="VLLM_ENABLE_V1_MULTIPROCESSING=0")
    p.add_argument("--executor", choices=["default", "mp", "uni"], default="default")
    p.add_argument("--tokenizer", action="store_true", help="model with a tiny word-level tokenizer")
    p.add_argument("--serve", action="store_true")
    p.add_argument("--port", type=int, default=0, help="0: a free port")
    p.add_argument("--concurrency", type=int, default=8)
    p.add_argument("--hold", type=float, default=0.0, help="stay so long after the requests")
    p.add_argument("--stop-signal", choices=["TERM", "INT"], default="TERM")
    p.add_argument("--start-timeout", type=float, default=300.0)
    p.add_argument("--metrics-out", help="write the Prometheus text (serve) or get_metrics() (offline) here")
    p.add_argument("--log", help="serve: server log file (default: a file beside --metrics-out or /tmp)")
    p.add_argument("--pmref", metavar="DIR", help="count vLLM's calls with reference/ into DIR")
    p.add_argument("--pmref-mode", choices=["targets", "all"], default="targets")
    p.add_argument("--engine-arg", action="append", default=[], metavar="NAME=JSON",
                   help="any further EngineArgs field, e.g. kv_cache_metrics=true")
    p.add_argument("--ready-file", help="touched when the engine is ready (before the first request)")
    return p


def env_for(a):
    e = dict(os.environ)
    e.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    e.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    e["HF_HUB_OFFLINE"] = "1"
    e.setdefault("VLLM_NO_USAGE_STATS", "1")
    e.setdefault("DO_NOT_TRACK", "1")
    if a.mrv2 != "default":
        e["VLLM_USE_V2_MODEL_RUNNER"] = a.mrv2
    if a.start_method != "default":
        e["VLLM_WORKER_MULTIPROC_METHOD"] = a.start_method
    if a.in_process:
        e["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if a.mrv2_interpret:
        e["VLLM_USE_V2_MODEL_RUNNER"] = "1"
        e["FAKE_TRITON_CPU"] = "1"
    if a.pmref:
        e["PMREF_OUT"] = os.path.abspath(a.pmref)
        e["PMREF_MODE"] = a.pmref_mode
        e.setdefault("PMREF_EVENTS", "1")
    if any("_parallel_size=" in s for s in a.engine_arg):
        # Workers bind themselves to a NUMA node each, and there may be fewer.
        e.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        e.setdefault("OMP_NUM_THREADS", "1")
    path = [HERE] + ([e["PYTHONPATH"]] if e.get("PYTHONPATH") else [])
    if a.pmref or a.mrv2_interpret:
        path.insert(0, os.path.join(HERE, "reference_mrv2" if a.mrv2_interpret else "reference"))
    e["PYTHONPATH"] = ":".join(path)
    return e


def engine_kwargs(a):
    k = dict(load_format="dummy", max_model_len=a.max_model_len, max_num_seqs=a.max_num_seqs)
    if a.block_size:
        k["block_size"] = a.block_size
    if not a.tokenizer:
        k["skip_tokenizer_init"] = True
    if not a.compile:
        k["enforce_eager"] = True
    if a.num_gpu_blocks:
        k["num_gpu_blocks_override"] = a.num_gpu_blocks
    if a.max_num_batched_tokens:
        k["max_num_batched_tokens"] = a.max_num_batched_tokens
    if a.no_prefix_caching:
        k["enable_prefix_caching"] = False
    if a.async_scheduling != "default":
        k["async_scheduling"] = a.async_scheduling == "on"
    if a.executor != "default":
        k["distributed_executor_backend"] = a.executor
    for s in a.engine_arg:
        n, _, v = s.partition("=")
        k[n.replace("-", "_")] = json.loads(v) if v else True
    return k


def prompts(a, rnd):
    out = []
    r = 0 if a.prompt_mode == "repeat" else rnd
    for i in range(a.requests):
        n = min(a.prompt_len + i * a.prompt_step, a.max_model_len - a.max_tokens - 1)
        if a.prompt_mode == "shared":
            out.append([(j * 13) % 1000 + 3 for j in range(max(n - 3, 1))] + [(i * 7 + k + r * 31) % 1000 + 3 for k in range(3)])
        else:
            out.append([(i * 7919 + r * 104729 + j * 31) % 1000 + 3 for j in range(n)])
    return out


def model_dir(a):
    if a.model:
        return a.model
    sys.path.insert(0, HERE)
    import models
    return models.ensure_model(a.model_kind, layers=a.layers, experts=a.experts, topk=a.topk, tokenizer=a.tokenizer)


def touch(path):
    if path:
        with open(path, "w") as f:
            f.write("%.6f\n" % time.time())


def metrics(llm):
    """vLLM's own counts: name -> [{labels, value}]."""
    m = {}
    try:
        for x in llm.get_metrics():
            v = getattr(x, "value", None)
            if v is None:
                v = {"count": getattr(x, "count", None), "sum": getattr(x, "sum", None),
                     "buckets": getattr(x, "buckets", None)} if hasattr(x, "count") else getattr(x, "values", None)
            m.setdefault(x.name, []).append({"labels": dict(x.labels), "value": v})
    except Exception as e:
        m = {"error": repr(e)}
    return m


def offline(a):
    t0 = time.time()
    from vllm import LLM, SamplingParams
    path = model_dir(a)
    llm = LLM(model=path, disable_log_stats=False, **engine_kwargs(a))
    t_load = time.time() - t0
    touch(a.ready_file)
    sp = SamplingParams(max_tokens=a.max_tokens, ignore_eos=True, detokenize=bool(a.tokenizer), temperature=0.0)
    nout = ntok = 0
    digest = hashlib.sha256()
    t1 = time.time()
    rounds = 0
    for r in range(a.rounds):
        if a.stop_file and os.path.exists(a.stop_file):
            break
        rounds += 1
        if r and a.round_gap:
            time.sleep(a.round_gap)
        res = llm.generate([{"prompt_token_ids": p} for p in prompts(a, r)], sp, use_tqdm=False)
        nout += len(res)
        ntok += sum(len(o.outputs[0].token_ids) for o in res)
        for o in res:
            digest.update(json.dumps(list(o.outputs[0].token_ids)).encode())
    t_gen = time.time() - t1
    if a.hold:
        time.sleep(a.hold)
    m = metrics(llm)
    if a.metrics_out:
        with open(a.metrics_out, "w") as f:
            json.dump(m, f, indent=1)

    def val(n):
        try:
            return m[n][0]["value"]
        except (KeyError, IndexError):
            return None
    ok = nout == a.requests * rounds and ntok == nout * a.max_tokens
    out = {"mode": "offline", "ok": ok, "requests": nout, "output_tokens": ntok, "output_sha256": digest.hexdigest(), "load_s": round(t_load, 2),
           "generate_s": round(t_gen, 3), "num_preemptions": val("vllm:num_preemptions"),
           "prefix_cache_queries": val("vllm:prefix_cache_queries"), "prefix_cache_hits": val("vllm:prefix_cache_hits"),
           "iteration_tokens": val("vllm:iteration_tokens_total"), "kv_cache_usage_perc": val("vllm:kv_cache_usage_perc")}
    return ok, out


def http(url, body=None, timeout=120):
    req = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(),
                                 headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(req, timeout=timeout) as r:
        return r.status, r.read()


def serve(a):
    path = model_dir(a)
    port = a.port
    if not port:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
    cmd = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", path, "--host", "127.0.0.1",
           "--port", str(port), "--served-model-name", "tiny"]
    for k, v in engine_kwargs(a).items():
        flag = "--" + k.replace("_", "-")
        if v is True:
            cmd.append(flag)
        elif v is False:
            cmd.append("--no-" + k.replace("_", "-"))
        elif isinstance(v, (dict, list)):
            cmd += [flag, json.dumps(v)]
        else:
            cmd += [flag, str(v)]
    log = a.log or (a.metrics_out + ".log" if a.metrics_out else "/tmp/vllm-driver-%d.log" % os.getpid())
    base = "http://127.0.0.1:%d" % port
    print("server:", " ".join(cmd), "log:", log, flush=True)
    t0 = time.time()
    # Who ends it before its time does not leave the server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    with open(log, "wb") as lf:
        proc = subprocess.Popen(cmd, env=env_for(a), stdout=lf, stderr=subprocess.STDOUT)
    tree = []
    try:
        while True:
            if proc.poll() is not None:
                raise SystemExit("server exited with %d; see %s" % (proc.returncode, log))
            if time.time() - t0 > a.start_timeout:
                raise SystemExit("server not ready after %.0f s; see %s" % (a.start_timeout, log))
            try:
                if http(base + "/health", timeout=2)[0] == 200:
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        t_load = time.time() - t0
        touch(a.ready_file)
        tree = children(proc.pid)
        while a.start_file and not os.path.exists(a.start_file):
            time.sleep(0.1)
        t1 = time.time()
        errs, done = [], [0, 0]
        lk = threading.Lock()

        def work(items):
            while True:
                with lk:
                    if not items:
                        return
                    p = items.pop(0)
                try:
                    st, b = http(base + "/v1/completions", {"model": "tiny", "prompt": p, "max_tokens": a.max_tokens,
                                 "ignore_eos": True, "temperature": 0.0, **({} if a.tokenizer else
                                 {"detokenize": False, "return_token_ids": True})}, timeout=300)
                    j = json.loads(b)
                    with lk:
                        done[0] += 1
                        done[1] += j["usage"]["completion_tokens"]
                except Exception as e:
                    msg = repr(e)
                    if isinstance(e, urllib.error.HTTPError):
                        msg += " " + e.read().decode(errors="replace")[:500]
                    with lk:
                        errs.append(msg)
        for r in range(a.rounds):
            if r and a.round_gap:
                time.sleep(a.round_gap)
            items = prompts(a, r)
            ths = [threading.Thread(target=work, args=(items,)) for _ in range(a.concurrency)]
            [t.start() for t in ths]
            [t.join() for t in ths]
        t_gen = time.time() - t1
        if a.hold:
            until = time.time() + a.hold
            while time.time() < until and not (a.stop_file and os.path.exists(a.stop_file)):
                time.sleep(0.1)
        elif a.pmref:
            time.sleep(1.5)     # the server's children are SIGKILLed at stop: let the hooks flush first
        text = http(base + "/metrics")[1].decode()
        if a.metrics_out:
            with open(a.metrics_out, "w") as f:
                f.write(text)
        tree = children(proc.pid) or tree
    finally:
        if proc.poll() is None:
            proc.send_signal(signal.SIGTERM if a.stop_signal == "TERM" else signal.SIGINT)
        t2 = time.time()
        try:
            rc = proc.wait(60)
        except subprocess.TimeoutExpired:
            proc.kill()
            rc = proc.wait()
        t_stop = time.time() - t2

    def val(n):
        s = [float(x) for x in re.findall(r"^%s(?:\{[^}]*\})? ([-+0-9.eE]+)$" % re.escape(n), text, re.M)]
        return sum(s) if s else None
    ok = not errs and done[0] == a.requests * a.rounds
    return ok, {"mode": "serve", "ok": ok, "requests": done[0], "output_tokens": done[1], "errors": errs[:3],
                "load_s": round(t_load, 2), "generate_s": round(t_gen, 3), "stop_s": round(t_stop, 2), "server_rc": rc,
                "processes": tree, "num_preemptions": val("vllm:num_preemptions_total"),
                "prefix_cache_queries": val("vllm:prefix_cache_queries_total"),
                "prefix_cache_hits": val("vllm:prefix_cache_hits_total"),
                "iteration_tokens_count": val("vllm:iteration_tokens_total_count"),
                "iteration_tokens_sum": val("vllm:iteration_tokens_total_sum"),
                "kv_cache_usage_perc": val("vllm:kv_cache_usage_perc"), "port": port, "log": log}


def children(pid):
    out = []
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open("/proc/%s/stat" % d) as f:
                    s = f.read()
                ppid = int(s.rsplit(")", 1)[1].split()[1])
                with open("/proc/%s/comm" % d) as f:
                    comm = f.read().strip()
                with open("/proc/%s/cmdline" % d, "rb") as f:
                    cmd = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
                out.append((int(d), ppid, comm, cmd[:120]))
            except OSError:
                pass
    want, res, grow = {pid}, [], True
    while grow:
        grow = False
        for t in out:
            if t[0] not in want and t[1] in want:
                want.add(t[0])
                grow = True
    return [t for t in out if t[0] in want]


def prepare(a):
    """Sets the environment of an engine in this process; starts anew where sitecustomize has to load first."""
    e = env_for(a)
    need = {k: v for k, v in e.items() if os.environ.get(k) != v}
    if (a.pmref or a.mrv2_interpret) and os.environ.get("_DRV_REEXEC") != "1":
        e["_DRV_REEXEC"] = "1"
        os.execve(sys.executable, [sys.executable] + sys.argv, e)
    os.environ.update(need)


def main():
    a = parser().parse_args()
    if a.serve:
        ok, res = serve(a)
    else:
        prepare(a)
        ok, res = offline(a)
    res["args"] = {k: v for k, v in vars(a).items() if v not in (None, [], False)}
    print("RESULT " + json.dumps(res), flush=True)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
