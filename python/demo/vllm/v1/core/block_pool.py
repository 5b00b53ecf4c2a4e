"""All blocks: which are free, which hold reusable prefixes, which are thrown out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from profilemate_demo import truth
from vllm.v1.core.kv_cache_utils import (
    FreeKVCacheBlockQueue,
    KVCacheBlock,
    make_block_hash_with_group_id,
)
from vllm.v1.request import Request


class BlockHashToBlockMap:
    """Cached blocks by key. The same contents may stand in several blocks."""

    def __init__(self) -> None:
        self._cache: dict[bytes, dict[int, KVCacheBlock]] = {}

    def get_one_block(self, key: bytes) -> KVCacheBlock | None:
        blocks = self._cache.get(key)
        return next(iter(blocks.values())) if blocks else None

    def insert(self, key: bytes, block: KVCacheBlock) -> None:
        self._cache.setdefault(key, {})[block.block_id] = block

    def pop(self, key: bytes, block_id: int) -> KVCacheBlock | None:
        blocks = self._cache.get(key)
        if blocks is None:
            return None
        block = blocks.pop(block_id, None)
        if not blocks:
            del self._cache[key]
        return block

    def __len__(self) -> int:
        return len(self._cache)


class BlockPool:
    """The pool. Block 0 is the null block, which is never handed out and does not count as capacity."""

    def __init__(
        self,
        num_gpu_blocks: int,
        enable_caching: bool,
        hash_block_size: int,
        enable_kv_cache_events: bool = False,
        metrics_collector: Any | None = None,
        medium: str = "GPU",
    ) -> None:
        self.num_gpu_blocks = num_gpu_blocks
        self.medium = medium
        self.enable_caching = enable_caching
        self.hash_block_size = hash_block_size
        self.blocks = [KVCacheBlock(number, pool=self) for number in range(num_gpu_blocks)]
        self.free_block_queue = FreeKVCacheBlockQueue(self.blocks)
        self.cached_block_hash_to_block = BlockHashToBlockMap()
        self.cached_block_hashes_by_block: dict[int, set[bytes]] = {}
        self.null_block = self.free_block_queue.popleft()
        self.null_block.is_null = True
        self.enable_kv_cache_events = enable_kv_cache_events
        self.kv_event_queue: list = []
        self.metrics_collector = metrics_collector
        self._reuse_watchers: dict = {}

    def get_cached_block(self, block_hash: bytes, kv_cache_group_ids: list[int]) -> list[KVCacheBlock] | None:
        """A block with these contents for each group, or nothing if one lacks it."""
        found = []
        for group in kv_cache_group_ids:
            block = self.cached_block_hash_to_block.get_one_block(make_block_hash_with_group_id(block_hash, group))
            if block is None:
                return None
            found.append(block)
        return found

    def cache_full_blocks(
        self,
        request: Request,
        blocks: list[KVCacheBlock],
        num_cached_blocks: int,
        num_full_blocks: int,
        block_size: int,
        kv_cache_group_id: int,
        block_mask: list[bool] | None = None,
    ) -> None:
        """Makes the full blocks of a request findable by their contents."""
        for index in range(num_cached_blocks, num_full_blocks):
            block = blocks[index]
            masked = block_mask is not None and not block_mask[index - num_cached_blocks]
            if block.is_null or masked:
                continue
            key = make_block_hash_with_group_id(request.block_hashes[index], kv_cache_group_id)
            block.set_block_hash(key, (index + 1) * block_size)
            self.cached_block_hash_to_block.insert(key, block)

    def get_new_blocks(self, num_blocks: int) -> list[KVCacheBlock]:
        """Takes free blocks; those that held a cached prefix lose it."""
        if num_blocks > self.get_num_free_blocks():
            raise ValueError(f"{num_blocks} blocks wanted, {self.get_num_free_blocks()} free")
        taken = self.free_block_queue.popleft_n(num_blocks)
        for block in taken:
            if self.enable_caching:
                self._maybe_evict_cached_block(block)
            block.ref_cnt += 1
        return taken

    def _maybe_evict_cached_block(self, block: KVCacheBlock) -> bool:
        """Forgets what the block holds. True if it was a cached prefix: that is an eviction."""
        key = block.block_hash
        if key is None or self.cached_block_hash_to_block.pop(key, block.block_id) is None:
            return False
        block.reset_hash()
        if truth.enabled:
            truth.evict(block)
        return True

    def touch(self, blocks: Sequence[KVCacheBlock]) -> None:
        """One more request uses these blocks; free ones are free no longer."""
        for block in blocks:
            if block.ref_cnt == 0 and not block.is_null:
                self.free_block_queue.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[KVCacheBlock]) -> None:
        """One request fewer uses these blocks. Those without a hash are used up first, the others last."""
        cached, other = [], []
        for block in ordered_blocks:
            block.ref_cnt -= 1
            if block.ref_cnt == 0 and not block.is_null:
                (other if block.block_hash is None else cached).append(block)
        self.free_block_queue.prepend_n(other)
        self.free_block_queue.append_n(cached)

    def evict_blocks(self, block_ids: set[int]) -> None:
        """Forgets what the given blocks hold."""
        for block_id in block_ids:
            self._maybe_evict_cached_block(self.blocks[block_id])

    def get_num_free_blocks(self) -> int:
        return self.free_block_queue.num_free_blocks

    def get_usage(self) -> float:
        """Share of the capacity in use, 0.0 to 1.0."""
        capacity = self.num_gpu_blocks - 1
        return 1.0 - self.get_num_free_blocks() / capacity if capacity else 0.0
