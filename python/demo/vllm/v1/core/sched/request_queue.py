"""The queue of waiting requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from enum import Enum

from vllm.v1.request import Request


class SchedulingPolicy(Enum):
    """In which order waiting requests are taken."""

    FCFS = "fcfs"


class RequestQueue(ABC):
    """What the scheduler needs of a queue."""

    @abstractmethod
    def add_request(self, request: Request) -> None: ...

    @abstractmethod
    def pop_request(self) -> Request: ...

    @abstractmethod
    def peek_request(self) -> Request: ...

    @abstractmethod
    def prepend_request(self, request: Request) -> None: ...

    @abstractmethod
    def remove_requests(self, requests: Iterable[Request]) -> None: ...


class FCFSRequestQueue(deque[Request], RequestQueue):
    """First come, first served."""

    def add_request(self, request: Request) -> None:
        self.append(request)

    def pop_request(self) -> Request:
        return self.popleft()

    def peek_request(self) -> Request:
        return self[0]

    def prepend_request(self, request: Request) -> None:
        self.appendleft(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        gone = {id(request) for request in requests}
        kept = [request for request in self if id(request) not in gone]
        self.clear()
        self.extend(kept)


def create_request_queue(policy: SchedulingPolicy) -> RequestQueue:
    """The queue for a policy."""
    return {SchedulingPolicy.FCFS: FCFSRequestQueue}[policy]()
