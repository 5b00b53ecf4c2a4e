"""Stand-in for `vllm.multimodal`."""
