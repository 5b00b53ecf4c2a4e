"""Blocks, the list of free ones, and block hashes."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.request import Request

# Stands before the first block of every request.
NONE_HASH = hashlib.blake2b(b"profilemate demo", digest_size=32).digest()


def make_block_hash_with_group_id(block_hash: bytes, group_id: int) -> bytes:
    """The key of a cached block: hash and group."""
    return block_hash + group_id.to_bytes(4, "big")


def hash_block_tokens(
    parent: bytes, tokens: list[int], salt: str | None = None, pictures: Iterable[str] = ()
) -> bytes:
    """Hash of one full block, with the pictures in it, and of all that stands before it."""
    state = hashlib.blake2b(parent, digest_size=32)
    state.update(array("I", tokens).tobytes())
    for more in (salt, *pictures):
        if more is not None:
            state.update(more.encode() + b"\0")
    return state.digest()


def pictures_in(request: Request, begin: int, end: int) -> list[str]:
    """Pictures of which a part stands between two positions."""
    found = []
    for feature in request.mm_features:
        place = feature.mm_position
        if place.offset < end and place.offset + place.length > begin:
            found.append(feature.identifier)
    return found


def get_request_block_hasher(block_size: int) -> Callable[[Request], list[bytes]]:
    """A function that hashes a request's full blocks which have no hash yet."""

    def request_block_hasher(request: Request) -> list[bytes]:
        tokens = request._all_token_ids
        done = len(request.block_hashes)
        parent = request.block_hashes[-1] if done else NONE_HASH
        hashes = []
        for end in range((done + 1) * block_size, len(tokens) + 1, block_size):
            begin = end - block_size
            pictures = pictures_in(request, begin, end)
            parent = hash_block_tokens(parent, tokens[begin:end], request.cache_salt, pictures)
            hashes.append(parent)
        return hashes

    return request_block_hasher


@dataclass(slots=True)
class KVCacheBlock:
    """One block of key-value memory."""

    block_id: int
    ref_cnt: int = 0
    pool: BlockPool | None = field(default=None, repr=False, compare=False, kw_only=True)
    _block_hash: bytes | None = None
    _block_hash_num_tokens: int | None = None
    prev_free_block: KVCacheBlock | None = None
    next_free_block: KVCacheBlock | None = None
    is_null: bool = False

    @property
    def block_hash(self) -> bytes | None:
        return self._block_hash

    @property
    def block_hash_num_tokens(self) -> int | None:
        return self._block_hash_num_tokens

    def set_block_hash(self, block_hash: bytes, num_tokens: int | None = None) -> None:
        if self._block_hash is not None:
            raise RuntimeError(f"block {self.block_id} has a hash already")
        self._block_hash = block_hash
        self._block_hash_num_tokens = num_tokens

    def reset_hash(self) -> None:
        self._block_hash = None
        self._block_hash_num_tokens = None

    def __repr__(self) -> str:
        # The neighbours only by number: the list is a cycle.
        near = [b.block_id if b else None for b in (self.prev_free_block, self.next_free_block)]
        return f"KVCacheBlock(block_id={self.block_id}, ref_cnt={self.ref_cnt}, neighbours={near})"


class FreeKVCacheBlockQueue:
    """Free blocks in the order in which they are to be used up: a doubly linked list with a sentinel at each end."""

    def __init__(self, blocks: list[KVCacheBlock]) -> None:
        self.num_free_blocks = 0
        self.fake_free_list_head = KVCacheBlock(block_id=-1)
        self.fake_free_list_tail = KVCacheBlock(block_id=-1)
        self.fake_free_list_head.next_free_block = self.fake_free_list_tail
        self.fake_free_list_tail.prev_free_block = self.fake_free_list_head
        self.append_n(blocks)

    def popleft(self) -> KVCacheBlock:
        """Takes the first block."""
        first = self.fake_free_list_head.next_free_block
        if first is None or first is self.fake_free_list_tail:
            raise ValueError("no free block")
        self.remove(first)
        return first

    def popleft_n(self, n: int) -> list[KVCacheBlock]:
        """Takes the first `n` blocks."""
        if n > self.num_free_blocks:
            raise ValueError(f"{n} blocks wanted, {self.num_free_blocks} free")
        return [self.popleft() for _ in range(n)]

    def remove(self, block: KVCacheBlock) -> None:
        """Takes out a block, wherever it is."""
        before, after = block.prev_free_block, block.next_free_block
        if before is None or after is None:
            raise RuntimeError(f"{block!r} is not free")
        before.next_free_block, after.prev_free_block = after, before
        block.prev_free_block = block.next_free_block = None
        self.num_free_blocks -= 1

    def append(self, block: KVCacheBlock) -> None:
        """Puts a block at the end: it is used up last."""
        self._insert(block, self.fake_free_list_tail)

    def append_n(self, blocks: Iterable[KVCacheBlock]) -> None:
        """Puts blocks at the end."""
        for block in blocks:
            self._insert(block, self.fake_free_list_tail)

    def prepend_n(self, blocks: Iterable[KVCacheBlock]) -> None:
        """Puts blocks at the front, the first of them foremost."""
        first = self.fake_free_list_head.next_free_block
        for block in blocks:
            self._insert(block, first)

    def get_all_free_blocks(self) -> list[KVCacheBlock]:
        """All free blocks, first to be used up first."""
        found = []
        block = self.fake_free_list_head.next_free_block
        while block is not None and block is not self.fake_free_list_tail:
            found.append(block)
            block = block.next_free_block
        return found

    def _insert(self, block: KVCacheBlock, after: KVCacheBlock) -> None:
        before = after.prev_free_block
        block.prev_free_block, block.next_free_block = before, after
        before.next_free_block = after.prev_free_block = block
        self.num_free_blocks += 1
