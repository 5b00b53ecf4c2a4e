"""Which blocks belong to which request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import KVCacheBlock
from vllm.v1.request import Request


@dataclass
class KVCacheConfig:
    """Size of the memory; there is one group of layers."""

    num_blocks: int
    block_size: int


@dataclass
class KVCacheBlocks:
    """Blocks of one request, for each group of layers."""

    blocks: tuple[Sequence[KVCacheBlock], ...]

    def get_block_ids(self, allow_none: bool = False) -> tuple[list[int], ...] | None:
        """The blocks' numbers; nothing, if allowed, where there are no blocks."""
        if allow_none and not any(self.blocks):
            return None
        return tuple([block.block_id for block in group] for group in self.blocks)


class KVCacheManager:
    """Hands out blocks for the tokens of requests, and finds prefixes that are there already."""

    def __init__(
        self,
        kv_cache_config: KVCacheConfig,
        max_model_len: int,
        scheduler_block_size: int,
        hash_block_size: int,
        enable_caching: bool = True,
        log_stats: bool = False,
        watermark: float = 0.0,
    ) -> None:
        self.max_model_len = max_model_len
        self.enable_caching = enable_caching
        self.enable_kv_cache_events = False
        self.use_eagle = False
        self.log_stats = log_stats
        self.metrics_collector: Any | None = None
        self.prefix_cache_stats: Any | None = None
        self.num_kv_cache_groups = 1
        self.block_pool = BlockPool(kv_cache_config.num_blocks, enable_caching, hash_block_size)
        self.kv_cache_config = kv_cache_config
        self.watermark_blocks = int(watermark * kv_cache_config.num_blocks)
        self.empty_kv_cache_blocks = KVCacheBlocks(((),))
        self.block_size = scheduler_block_size
        self.req_to_blocks: dict[str, list[KVCacheBlock]] = {}
        self.num_cached_block: dict[str, int] = {}

    @property
    def usage(self) -> float:
        """Share of the memory in use, 0.0 to 1.0."""
        return self.block_pool.get_usage()

    def get_computed_blocks(self, request: Request) -> tuple[KVCacheBlocks, int, int]:
        """Cached blocks that a request's tokens begin with, the tokens they hold, and 0."""
        if not self.enable_caching or request.skip_reading_prefix_cache:
            return self.empty_kv_cache_blocks, 0, 0
        # The last token is always computed: its result is the next token.
        usable = (request.num_tokens - 1) // self.block_size
        found: list[KVCacheBlock] = []
        for block_hash in request.block_hashes[:usable]:
            blocks = self.block_pool.get_cached_block(block_hash, [0])
            if blocks is None:
                break
            found.append(blocks[0])
        return KVCacheBlocks((found,)), len(found) * self.block_size, 0

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        num_new_computed_tokens: int = 0,
        new_computed_blocks: KVCacheBlocks | None = None,
    ) -> KVCacheBlocks | None:
        """Blocks for the next tokens of a request; nothing if there are not enough."""
        hits = list(new_computed_blocks.blocks[0]) if new_computed_blocks is not None else []
        have = self.req_to_blocks.setdefault(request.request_id, [])
        tokens = request.num_computed_tokens + num_new_computed_tokens + num_new_tokens
        needed = -(-tokens // self.block_size) - len(have) - len(hits)
        # A hit that is free now stops being free by being used.
        idle_hits = sum(1 for block in hits if block.ref_cnt == 0)
        if needed + idle_hits > self.block_pool.get_num_free_blocks():
            return None
        if hits:
            self.block_pool.touch(hits)
            have.extend(hits)
            self.num_cached_block[request.request_id] = len(have)
        taken = self.block_pool.get_new_blocks(needed) if needed > 0 else []
        have.extend(taken)
        if self.enable_caching:
            self.cache_blocks(request, min(tokens, request.num_tokens))
        return KVCacheBlocks((taken,))

    def cache_blocks(self, request: Request, num_computed_tokens: int) -> None:
        """Makes the blocks that are full with this step findable for others."""
        cached = self.num_cached_block.get(request.request_id, 0)
        full = num_computed_tokens // self.block_size
        if cached >= full:
            return
        blocks = self.req_to_blocks[request.request_id]
        self.block_pool.cache_full_blocks(request, blocks, cached, full, self.block_size, 0)
        self.num_cached_block[request.request_id] = full

    def free(self, request: Request) -> None:
        """Gives back a request's blocks, the last one first, so that beginnings stay cached longest."""
        self.num_cached_block.pop(request.request_id, None)
        blocks = self.req_to_blocks.pop(request.request_id, [])
        self.block_pool.free_blocks(reversed(blocks))

    def get_blocks(self, request_id: str) -> KVCacheBlocks:
        """All blocks of a request."""
        return KVCacheBlocks((self.req_to_blocks.get(request_id, []),))
