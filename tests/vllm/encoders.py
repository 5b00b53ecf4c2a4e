"""Builds tiny dummy-weight models that have an encoder: a LLaVA (images) and a Whisper (audio), each with a processor
of its own, so that nothing is downloaded. And a tokenizer of single characters, and a LoRA adapter.
"""
import json
import os

import models

SPECIAL = ["<unk>", "<s>", "</s>", "<image>"]
CHARACTERS = [chr(code) for code in range(0x20, 0x7f)]
IMAGE = SPECIAL.index("<image>")


def put(path, name, content):
    temporary = os.path.join(path, "%s.%d" % (name, os.getpid()))
    with open(temporary, "w") as f:
        f.write(content if isinstance(content, str) else json.dumps(content, indent=1))
    os.replace(temporary, os.path.join(path, name))


def folder(name):
    path = os.path.join(os.path.expanduser("~/.cache/profilemate/models"), name)
    os.makedirs(path, exist_ok=True)
    return path


def character(token):
    """The character that a token stands for; None if it is no single one."""
    index = token - len(SPECIAL)
    return CHARACTERS[index] if 0 <= index < len(CHARACTERS) else None


def character_tokenizer(path):
    """Token by token a printable ASCII character; the rest of the vocabulary are words that no text has."""
    from tokenizers import Regex, Tokenizer, models as kinds, pre_tokenizers
    words = SPECIAL + CHARACTERS
    words += ["<t%d>" % index for index in range(len(words), models.VOCAB)]
    tokenizer = Tokenizer(kinds.WordLevel(vocab={word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.add_special_tokens(SPECIAL)
    put(path, "tokenizer.json", tokenizer.to_str())
    put(path, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 2048, "clean_up_tokenization_spaces": False})


def llama():
    path = folder("llama-characters")
    put(path, "config.json", models.CONFIGS["llama"])
    character_tokenizer(path)
    return path


def adapter(index):
    """A LoRA adapter of rank 4 for the queries and values of `llama`."""
    import torch
    from safetensors.torch import save_file
    path = folder("llama-adapter-%d" % index)
    config = models.CONFIGS["llama"]
    hidden, rank = config["hidden_size"], 4
    torch.manual_seed(index)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in ("q_proj", "v_proj"):
            name = "base_model.model.model.layers.%d.self_attn.%s.lora_" % (layer, module)
            tensors[name + "A.weight"] = torch.randn(rank, hidden)
            tensors[name + "B.weight"] = torch.randn(hidden, rank)
    temporary = os.path.join(path, "adapter_model.%d" % os.getpid())
    save_file(tensors, temporary)
    os.replace(temporary, os.path.join(path, "adapter_model.safetensors"))
    put(path, "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "llama"})
    return path


def llava(side=56, patch=14):
    """Images of `side` pixels are (side / patch) squared tokens: 16."""
    path = folder("llava-%d" % side)
    put(path, "config.json", {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "torch_dtype": "bfloat16",
        "image_token_index": IMAGE, "projector_hidden_act": "gelu", "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", "image_seq_length": (side // patch) ** 2,
        "text_config": models.CONFIGS["llama"],
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
                          "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": side, "patch_size": patch,
                          "projection_dim": 64, "vocab_size": 100}})
    size = {"height": side, "width": side}
    put(path, "preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "crop_size": size, "size": {"shortest_edge": side},
        "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, "rescale_factor": 1 / 255})
    put(path, "processor_config.json", {
        "processor_class": "LlavaProcessor", "patch_size": patch, "vision_feature_select_strategy": "default",
        "image_token": "<image>", "num_additional_image_tokens": 1})
    character_tokenizer(path)
    return path


def whisper(seconds=2):
    """Reads `seconds` of audio, 50 positions a second."""
    path = folder("whisper-%ds" % seconds)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    first = 256
    put(path, "config.json", {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "torch_dtype": "bfloat16",
        "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 80,
        "vocab_size": models.VOCAB, "max_source_positions": 50 * seconds, "max_target_positions": 128,
        "activation_function": "gelu", "scale_embedding": False, "is_encoder_decoder": True, "num_hidden_layers": 2,
        "bos_token_id": first, "eos_token_id": first, "pad_token_id": first, "decoder_start_token_id": first + 1})
    put(path, "preprocessor_config.json", {
        "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor",
        "chunk_length": seconds, "feature_size": 80, "hop_length": 160, "n_fft": 400, "sampling_rate": 16000,
        "n_samples": 16000 * seconds, "nb_max_frames": 100 * seconds, "padding_side": "right", "padding_value": 0.0,
        "return_attention_mask": False})
    from tokenizers import Tokenizer, decoders, models as kinds, pre_tokenizers
    words = sorted(pre_tokenizers.ByteLevel.alphabet()) + special
    words += ["<|%d|>" % index for index in range(len(words), models.VOCAB)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(kinds.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    put(path, "tokenizer.json", tokenizer.to_str())
    put(path, "vocab.json", vocabulary)
    put(path, "merges.txt", "#version: 0.2\n")
    put(path, "normalizer.json", {})
    put(path, "tokenizer_config.json", {
        "tokenizer_class": "WhisperTokenizer", "bos_token": special[0], "eos_token": special[0],
        "unk_token": special[0], "pad_token": special[0], "model_max_length": 128,
        "additional_special_tokens": special[1:]})
    return path, [first + 1, first + 2, first + 3, first + 4]
