"""Counts which experts are chosen, where the choices lie: on a GPU they never come to the host by themselves.

Every Nth call of each layer's router has its result counted by a few operations on the result's own device, into
tensors that stay there. About once a second the sums are copied to pinned memory, by one copy that nobody waits for: a
later call looks whether it is done. Nothing here makes the program wait for a device.

The sums then pass `publish`, whose arguments the tracer reads as it reads any call's. They count from the begin of the
sampling, so that a call that the tracer misses does no harm.

What is not counted: calls while a CUDA graph is captured (they choose nothing) and what replays of graphs choose (no
Python runs). PyTorch is never imported here.
"""

import sys
import time

# Seconds between two copies.
PERIOD = 1.0
# Layers on one device, at most: so many rows the tensors have.
LAYERS = 256
# Pairs of experts are counted up to so many experts, and so many for a token.
PAIR_EXPERTS = 64
PAIR_CHOICES = 8
# Numbers in one call of `publish`: what the tracer reads of one call.
PART = 512
# How far out the layer of a router is looked for.
DEPTH = 16

CHOSEN, PAIRS, PHYSICAL, OWNERS = range(4)


def publish(layer, experts, top_k, every, calls, sampled, captured, kind, keys, values):
    """Does nothing. The tracer reads the arguments: `values[i]` belongs to the expert, pair or slot `keys[i]`."""


class Layer:
    """One layer: its row in the tensors, and the calls of its router."""

    def __init__(self, name, experts, top_k, row):
        self.name, self.experts, self.top_k, self.row = name, experts, top_k, row
        self.calls = self.sampled = self.captured = 0

    def state(self):
        return self.calls, self.sampled, self.captured


class Bank:
    """The tensors of all layers with so many slots for experts on one device.

    A row has one place more at each end: for tokens without an expert, whose id is below zero, and for ids beyond the
    last expert. So no id can be out of bounds, which would be an error on the device.
    """

    def __init__(self, torch, device, experts, top_k):
        self.torch, self.on_host = torch, device.type == "cpu"
        self.width = experts + 2
        self.layers = []
        wide = {"dtype": torch.int64, "device": device}
        self.tensors = {CHOSEN: torch.zeros(LAYERS, self.width, **wide)}
        if 2 <= top_k <= PAIR_CHOICES and experts <= PAIR_EXPERTS:
            self.tensors[PAIRS] = torch.zeros(LAYERS, self.width * self.width, dtype=torch.int32, device=device)
        # Grows while a call is counted; odd in between. Only the thread that publishes looks.
        self.turn = 0
        self.copied, self.flying, self.landed = time.monotonic(), None, None
        self.host = self.event = None

    def add(self, name, experts, top_k):
        if len(self.layers) == LAYERS:
            return None
        self.layers.append(Layer(name, experts, top_k, len(self.layers)))
        return self.layers[-1]

    def places(self, ids):
        """Where in a row the ids are counted: ids of any shape and integer type."""
        return ids.to(self.torch.int64).add(1).clamp(0, self.width - 1)

    def count(self, layer, logical, physical):
        """Counts one call. Operations that are queued, nothing more."""
        self.turn += 1
        layer.sampled += 1
        places = self.places(logical)
        self.tally(CHOSEN, layer, places)
        if PAIRS in self.tensors and places.dim() == 2:
            apart = range(1, places.shape[1])
            one = self.torch.cat([places[:, :-far] for far in apart], 1)
            other = self.torch.cat([places[:, far:] for far in apart], 1)
            first, second = self.torch.minimum(one, other), self.torch.maximum(one, other)
            self.tally(PAIRS, layer, first * self.width + second)
        if physical is not None:
            self.count_physical(layer, places, self.places(physical))
        self.turn += 1

    def count_physical(self, layer, logical, physical):
        """Slots, and for each the expert that was in it last."""
        if PHYSICAL not in self.tensors:
            for kind in (PHYSICAL, OWNERS):
                self.tensors[kind] = self.torch.zeros_like(self.tensors[CHOSEN])
        self.tally(PHYSICAL, layer, physical)
        self.tensors[OWNERS][layer.row].scatter_(0, physical.reshape(-1), logical.reshape(-1))

    def tally(self, kind, layer, places):
        places = places.reshape(-1)
        row = self.tensors[kind][layer.row]
        row.scatter_add_(0, places, self.torch.ones_like(places, dtype=row.dtype))

    def carry(self, now):
        """Starts a copy to the host if one is due, or sees that the last one is done. In the program's thread."""
        if self.flying is not None:
            if self.event.query():
                self.landed, self.flying = self.flying, None
        elif self.landed is None and now - self.copied >= PERIOD:
            used = len(self.layers)
            if self.host is None or self.host.keys() != self.tensors.keys():
                # Once, and once more where physical ids turn up.
                self.host = {
                    kind: self.torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    for kind, tensor in self.tensors.items()
                }
                self.event = self.torch.cuda.Event()
            for kind, tensor in self.tensors.items():
                self.host[kind][:used].copy_(tensor[:used], non_blocking=True)
            self.event.record()
            self.copied = now
            self.flying = [(layer, layer.state()) for layer in self.layers]

    def take(self):
        """Sums that are on the host: layers, each with its calls, and tensors by kind. In the helper's thread."""
        if not self.on_host:
            landed, host = self.landed, self.host
            return None if landed is None else (landed, host)
        for _ in range(100):
            turn = self.turn
            if turn % 2 == 0:
                layers = [(layer, layer.state()) for layer in self.layers]
                copies = {kind: tensor[: len(layers)].clone() for kind, tensor in list(self.tensors.items())}
                if self.turn == turn:
                    return layers, copies
            time.sleep(0.0002)
        return None

    def told(self):
        """What `take` gave has been published: the next copy may come."""
        self.landed = None


class Sampler:
    """Every Nth call of each layer's router."""

    def __init__(self, every):
        self.every = every
        self.active = True
        self.failure = None
        self.banks = {}
        self.known = {}
        self.standing = []
        self.sent = {}

    # In the program's threads.

    def seen(self, receiver, logical, physical):
        """A router gave these ids. Never raises."""
        try:
            if self.active:
                self.look(receiver, logical, physical)
        except Exception as error:
            self.fail(error)

    def look(self, receiver, logical, physical):
        bank, layer = self.find(receiver, logical)
        if layer is None:
            return
        torch = bank.torch
        if not bank.on_host and torch.cuda.is_current_stream_capturing():
            layer.captured += 1
            return
        number, layer.calls = layer.calls, layer.calls + 1
        if number % self.every == 0:
            with torch.inference_mode():
                bank.count(layer, logical, physical)
                if not bank.on_host:
                    bank.carry(time.monotonic())

    def find(self, receiver, ids):
        """The layer whose router this is. A router does not know it, but is called by it."""
        found = self.known.get(id(receiver)) if receiver is not None else None
        if found is not None and found[0] is receiver:
            return found[1:]
        name, owner = caller()
        if name is None:
            return None, None
        found = self.known.get(name)
        if found is None:
            slots, top_k = slots_of(receiver, owner), int(ids.shape[-1])
            if slots is None:
                return None, None
            key = (str(ids.device), slots, top_k)
            if key not in self.banks:
                self.banks[key] = Bank(sys.modules["torch"], ids.device, slots, top_k)
            bank = self.banks[key]
            layer = bank.add(name, experts_of(receiver, slots), top_k)
            if layer is None:
                self.failure = self.failure or "more than %d layers: the others are not counted" % LAYERS
            found = self.known[name] = (None, bank, layer)
        if receiver is not None:
            # Routers live as long as their model; were one to go, its number would mean another.
            self.known[id(receiver)] = (receiver, *found[1:])
        return found[1:]

    def fail(self, error):
        """Something is not as it should be: no more is sampled."""
        self.active = False
        if self.failure is None:
            self.failure = "%s: %s" % (type(error).__name__, error)

    # In the helper's thread.

    def tell(self):
        """Publishes what has come to the host."""
        for bank in list(self.banks.values()):
            taken = bank.take()
            if taken is None:
                continue
            layers, tensors = taken
            for layer, state in layers:
                if self.sent.get(layer) != state:
                    self.sent[layer] = state
                    self.tell_layer(bank, layer, state, tensors)
            bank.told()

    def tell_layer(self, bank, layer, state, tensors):
        common = (layer.name, layer.experts, layer.top_k, self.every, *state)
        for kind, tensor in tensors.items():
            numbers = tensor[layer.row].tolist()
            found = [pair for pair in keys_of(kind, bank.width, numbers) if pair[1]]
            for at in range(0, max(1, len(found)), PART):
                part = found[at : at + PART]
                publish(*common, kind, [key for key, _ in part], [value for _, value in part])

    def stand_in(self, holder, last, takes):
        """Puts a function in the place of a router's, which calls it and looks at its ids."""
        found = vars(holder)[last]
        static = isinstance(found, staticmethod)
        original = found.__func__ if static else found
        if not callable(original):
            return
        made = sampled(self, original, takes)
        put(holder, last, staticmethod(made) if static else made)
        self.standing.append((holder, last, found, vars(holder)[last]))

    def restore(self):
        """Puts the routers back. What somebody else has replaced since then is left alone."""
        self.active = False
        for holder, last, found, made in self.standing:
            if vars(holder).get(last) is made:
                put(holder, last, found)
        self.standing = []


class Routers:
    """Waits for the modules with routers."""

    def __init__(self, sampler, routers):
        self.sampler = sampler
        self.routers = routers
        self.watched = {router["module"] for router in routers}

    def imported(self, name, module):
        """A watched module is complete. Never raises."""
        from .bind import find_holder

        for router in self.routers:
            if router["module"] == name:
                try:
                    holder, last = find_holder(module, router["qualname"])
                    self.sampler.stand_in(holder, last, router["ids"])
                except Exception as error:
                    # The others may still be there.
                    self.sampler.failure = self.sampler.failure or str(error)


def sampled(sampler, original, takes):
    """A function that does what `original` does."""
    compiler = getattr(sys.modules.get("torch"), "compiler", None)
    compiling = getattr(compiler, "is_compiling", bool)

    def stand_in(*arguments, **keywords):
        result = original(*arguments, **keywords)
        # Code that is being compiled is run without this.
        if not compiling():
            if takes == "mapped":
                # `mapping(self, ids)`: logical ids go in, physical ones come out; the same where nothing is mapped.
                receiver = arguments[0] if arguments else None
                ids = arguments[1] if len(arguments) > 1 else keywords.get("topk_ids")
                mapped = getattr(receiver, "eplb_state", None) is not None
                sampler.seen(receiver, ids, result if mapped else None)
            else:
                sampler.seen(None, result[1], None)
        return result

    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__wrapped__"):
        setattr(stand_in, name, original if name == "__wrapped__" else getattr(original, name))
    return stand_in


def put(holder, last, value):
    if isinstance(holder, type):
        type.__setattr__(holder, last, value)
    else:
        setattr(holder, last, value)


def caller():
    """Name of the layer that called a router, and the layer; None if none is found."""
    frame = sys._getframe(1)
    for _ in range(DEPTH):
        frame = frame.f_back
        if frame is None:
            break
        owner = frame.f_locals.get("self")
        name = getattr(owner, "layer_name", None)
        if isinstance(name, str):
            return name, owner
    return None, None


def experts_of(receiver, slots):
    """How many experts a layer has. With EPLB it has more slots for them."""
    counts = getattr(getattr(receiver, "eplb_state", None), "logical_replica_count", None)
    return slots if counts is None else min(slots, int(counts.shape[-1]))


def slots_of(receiver, owner):
    """How many places for experts a layer has."""
    places = [(receiver, "global_num_experts"), (owner, "global_num_experts")]
    places.append((getattr(owner, "moe_config", None), "num_experts"))
    for holder, name in places:
        number = getattr(holder, name, None)
        if isinstance(number, int) and 0 < number <= 1 << 14:
            return number
    return None


def keys_of(kind, width, numbers):
    """What a row's numbers belong to, with the numbers. A pair's key is the first expert and, 16 bits up, the second."""
    last = width - 1
    if kind == PAIRS:
        for place, number in enumerate(numbers):
            one, other = divmod(place, width)
            if 0 < one < last and 0 < other < last:
                yield (one - 1) | (other - 1) << 16, number
        return
    for place, number in enumerate(numbers[1:last]):
        # An owner is told one above its id, so that 0 is none.
        yield place, number
