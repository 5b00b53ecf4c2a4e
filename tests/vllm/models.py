"""Builds tiny dummy-weight model folders (config.json, optional tokenizer) for vLLM.

No weights are written: vLLM is started with load_format="dummy".
"""
import json
import os

VOCAB = 1024

_COMMON = dict(
    hidden_size=128, intermediate_size=256, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, head_dim=32,
    vocab_size=VOCAB, max_position_embeddings=2048, rms_norm_eps=1e-5,
    hidden_act="silu", torch_dtype="bfloat16", bos_token_id=1, eos_token_id=2,
    tie_word_embeddings=False, rope_theta=10000.0,
)

CONFIGS = {
    "llama": dict(_COMMON, architectures=["LlamaForCausalLM"], model_type="llama"),
    # 8 experts, top-2, 2 layers, every layer sparse.
    "moe": dict(_COMMON, architectures=["MixtralForCausalLM"], model_type="mixtral",
                num_local_experts=8, num_experts_per_tok=2, sliding_window=None,
                router_aux_loss_coef=0.0, output_router_logits=False,
                attention_dropout=0.0),
    # 8 experts, top-2, 2 layers, Qwen3-MoE layout.
    "qwenmoe": dict(_COMMON, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe",
                    num_experts=8, num_experts_per_tok=2, moe_intermediate_size=128,
                    norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
                    attention_bias=False, use_sliding_window=False,
                    sliding_window=None, max_window_layers=2,
                    router_aux_loss_coef=0.0, output_router_logits=False,
                    attention_dropout=0.0),
}


def build_tokenizer(path):
    """A word-level tokenizer: token i is the word "t<i>". Needs `tokenizers`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for i in range(3, VOCAB):
        vocab["t%d" % i] = i
    tok = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    tok.add_special_tokens(["<unk>", "<s>", "</s>"])
    tok.save(os.path.join(path, "tokenizer.json"))
    with open(os.path.join(path, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>",
                   "eos_token": "</s>", "unk_token": "<unk>",
                   "model_max_length": 2048, "clean_up_tokenization_spaces": False}, f)
    with open(os.path.join(path, "special_tokens_map.json"), "w") as f:
        json.dump({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, f)


def ensure_model(kind, root=None, layers=2, experts=8, topk=2, tokenizer=False):
    root = root or os.path.expanduser("~/.cache/profilemate/models")
    name = "%s-l%d%s%s" % (kind, layers, "" if kind == "llama" else "-e%dk%d" % (experts, topk),
                           "-tok" if tokenizer else "")
    path = os.path.join(root, name)
    os.makedirs(path, exist_ok=True)
    cfg = dict(CONFIGS[kind])
    cfg["num_hidden_layers"] = layers
    if "num_local_experts" in cfg:
        cfg["num_local_experts"] = experts
    if "num_experts" in cfg:
        cfg["num_experts"] = experts
    if "num_experts_per_tok" in cfg:
        cfg["num_experts_per_tok"] = topk
    tmp = os.path.join(path, "config.json.%d" % os.getpid())
    with open(tmp, "w") as f:
        json.dump(cfg, f, indent=1)
    os.replace(tmp, os.path.join(path, "config.json"))
    if tokenizer and not os.path.exists(os.path.join(path, "tokenizer.json")):
        build_tokenizer(path)
    return path


if __name__ == "__main__":
    for k in CONFIGS:
        print(ensure_model(k))
    print(ensure_model("llama", tokenizer=True))
