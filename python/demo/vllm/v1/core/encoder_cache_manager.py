"""Which pictures the workers have encoded and kept."""

from __future__ import annotations

from vllm.v1.request import Request


class EncoderCacheManager:
    """Room for what the encoder made of pictures. What no request needs is kept until the room is wanted, the oldest
    for the shortest time."""

    def __init__(self, cache_size: int) -> None:
        self.cache_size = cache_size
        self.num_free_slots = cache_size
        self.cached: dict[str, set[str]] = {}
        self.sizes: dict[str, int] = {}
        self.request_cached_ids: dict[str, set[int]] = {}
        self.freeable: dict[str, None] = {}
        self.freed: list[str] = []

    def check_and_update_cache(self, request: Request, input_id: int) -> bool:
        """Whether a picture is there; then the request holds it."""
        identifier = request.mm_features[input_id].identifier
        if identifier not in self.cached:
            return False
        self._hold(request, input_id)
        return True

    def can_allocate(self, request: Request, input_id: int, num_embeds_to_schedule: int = 0) -> bool:
        """Whether there is room for a picture; makes some if need be."""
        wanted = request.get_num_encoder_embeds(input_id) + num_embeds_to_schedule
        if wanted > self.num_free_slots + sum(self.sizes[identifier] for identifier in self.freeable):
            return False
        while wanted > self.num_free_slots:
            identifier = next(iter(self.freeable))
            del self.freeable[identifier], self.cached[identifier]
            self.num_free_slots += self.sizes.pop(identifier)
            self.freed.append(identifier)
        return True

    def allocate(self, request: Request, input_id: int) -> None:
        """Takes the room for a picture that is to be encoded."""
        identifier = request.mm_features[input_id].identifier
        if identifier not in self.cached:
            self.cached[identifier] = set()
            self.sizes[identifier] = request.get_num_encoder_embeds(input_id)
            self.num_free_slots -= self.sizes[identifier]
        self._hold(request, input_id)

    def get_cached_input_ids(self, request: Request) -> set[int]:
        return self.request_cached_ids.get(request.request_id, set())

    def free_encoder_input(self, request: Request, input_id: int) -> None:
        """The request needs a picture no longer."""
        identifier = request.mm_features[input_id].identifier
        self.request_cached_ids[request.request_id].discard(input_id)
        holders = self.cached[identifier]
        holders.discard(request.request_id)
        if not holders:
            self.freeable[identifier] = None

    def free(self, request: Request) -> None:
        """The request needs none of its pictures any longer."""
        for input_id in list(self.get_cached_input_ids(request)):
            self.free_encoder_input(request, input_id)
        self.request_cached_ids.pop(request.request_id, None)

    def get_freed_mm_hashes(self) -> list[str]:
        """What the workers are to forget."""
        freed, self.freed = [identifier for identifier in self.freed if identifier not in self.cached], []
        return freed

    def _hold(self, request: Request, input_id: int) -> None:
        identifier = request.mm_features[input_id].identifier
        self.freeable.pop(identifier, None)
        self.cached[identifier].add(request.request_id)
        self.request_cached_ids.setdefault(request.request_id, set()).add(input_id)
