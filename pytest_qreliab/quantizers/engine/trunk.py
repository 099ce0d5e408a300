"""The trunk of a tower: modules through which all that its features owe to the input passes, one after the other.

What comes after such a module depends on what came before through its output alone. So it can be run, and changed, by
itself, on inputs that were kept. Which modules these are is read from autograd's graph of a few probes, and not from
names: no path through the graph goes around what they read or write.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from pytest_qreliab.models import probes
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.quantizers.engine import layers as engine_layers
from pytest_qreliab.quantizers.engine.observers import memory_state

Edge = tuple[Any, int]  # a node of autograd's graph, and which of its outputs
State = tuple[int, int]  # which tensor or storage, and how often it was changed in place
Probe = Callable[[], torch.Tensor]  # encodes one input with gradients, and returns the features


@dataclass(frozen=True)
class Link:
    """How a stage's input comes from the stage before it."""

    through: tuple[nn.Module, ...]  # modules without layers, which are called on the output of the stage before
    further: tuple[int | str, ...]  # the arguments besides the first; they equal those of the stage before


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A module of the trunk, or a layer that is in none of them."""

    name: str
    module: nn.Module
    groups: tuple[tuple[str, ...], ...]  # the names of the layers that it calls; those that read one tensor together
    calls: Mapping[str, int]  # how often it calls each
    trunk: bool
    link: Link | None = None  # None: its input is seen only while the model runs

    def without(self, names: Collection[str]) -> Stage:
        """Return the stage with some of its layers left out."""
        groups = tuple(tuple(name for name in group if name not in names) for group in self.groups)
        calls = {name: count for name, count in self.calls.items() if name not in names}
        return replace(self, groups=tuple(group for group in groups if group), calls=calls)


def tower_probes(clip: Clip, tower: str) -> list[Probe]:
    """Return functions that encode images, or prompts, that are unlike each other: each alone, and all at once.

    Args:
        clip: The model.
        tower: "vision" or "text".
    """

    def see(images: torch.Tensor) -> Probe:
        source = images.to(clip.device).requires_grad_()
        return lambda: clip.layout.encode_image(clip.module, source.clone())

    def read(prompts: Sequence[str]) -> Probe:
        tokens = clip.tokenizer(list(prompts))

        def encode_text() -> torch.Tensor:
            with _first_embedding_as_source(clip.module):
                return clip.layout.encode_text(clip.module, tokens, clip.device)

        return encode_text

    if tower == "vision":
        images = engine_layers.probe_images(clip)
        return [see(part) for part in (*torch.split(images, 1), images)]
    return [read(part) for part in (*([prompt] for prompt in probes.PROMPTS), probes.PROMPTS)]


def find_stages(module: nn.Module, layers: Collection[str], probes: Sequence[Probe]) -> list[Stage]:
    """Return the stages of a tower in the order in which they run.

    Every layer that the probes reach is in one of them. The trunk is cut into as many modules as it can be.

    Args:
        module: The model.
        layers: The names of its layers.
        probes: One or more probes of the tower.
    """
    runs = [_watch(module, layers, probe) for probe in probes]
    names = set.intersection(*(run.candidates() for run in runs))
    chosen = runs[0].choose(names)
    if not all(run.in_order(chosen) for run in runs):
        chosen = []
    placed: list[tuple[float, Stage]] = []
    for place, name in enumerate(chosen):
        links = {run.link(chosen[place - 1], name) for run in runs} if place else {None}
        placed.append((place, _stage(name, runs, links.pop() if len(links) == 1 else None)))
    inside = {layer for _, stage in placed for layer in stage.calls}
    for run in runs:
        for call in run.calls:
            if call.name in run.layers and call.name not in inside:
                inside.add(call.name)
                # -0.5: before the stage that starts next
                placed.append((run.place(chosen, call) - 0.5, _stage(call.name, runs, trunk=False)))
    return [stage for _, stage in sorted(placed, key=lambda found: found[0])]


def _stage(name: str, runs: Sequence[_Run], link: Link | None = None, *, trunk: bool = True) -> Stage:
    groups: dict[tuple[int, State], list[str]] = {}
    counts: Counter[str] = Counter()
    for place, run in enumerate(runs):
        inside = [layer for call in run.named(name) for layer in run.layer_calls(call)]
        for layer in inside:
            if layer.name not in counts:
                groups.setdefault((place, layer.storage), []).append(layer.name)
        counts |= Counter(layer.name for layer in inside)
    (module,) = {call.module for run in runs for call in run.named(name)}
    distinct = tuple(tuple(dict.fromkeys(names)) for names in groups.values())
    return Stage(name=name, module=module, groups=distinct, calls=counts, trunk=trunk, link=link)


@dataclass(eq=False, kw_only=True)
class _Call:
    """A call of a module."""

    name: str
    module: nn.Module
    start: int
    reads: torch.Tensor | None  # the first argument
    read: State
    storage: State  # of what it reads
    source: Edge | None
    further: dict[int | str, Any]  # the other arguments
    end: int = -1
    output: torch.Tensor | None = None  # the first, if there are more
    written: State = (0, 0)
    target: Edge | None = None
    kept: bool = True  # whether it left its input as it was


@dataclass(kw_only=True)
class _Run:
    """All calls of modules while one probe is encoded, by the start."""

    layers: Collection[str]
    calls: list[_Call] = field(default_factory=list)
    cuts: set[Edge] = field(default_factory=set)

    def named(self, name: str) -> list[_Call]:
        return [call for call in self.calls if call.name == name]

    def layer_calls(self, outer: _Call) -> list[_Call]:
        """Return the calls of layers during a call, or the call itself."""
        return [call for call in self.calls if call.name in self.layers and outer.start <= call.start < outer.end]

    def candidates(self) -> set[str]:
        """Return the names of the modules that could be a stage of the trunk."""
        counts = Counter(call.name for call in self.calls)
        return {call.name for call in self.calls if counts[call.name] == 1 and self._cuts_off(call, counts)}

    def _cuts_off(self, call: _Call, counts: Mapping[str, int]) -> bool:
        inside = Counter(layer.name for layer in self.layer_calls(call))
        alone = all(count == counts[name] for name, count in inside.items())
        return bool(inside) and alone and call.kept and call.source in self.cuts and call.target in self.cuts

    def choose(self, names: Collection[str]) -> list[str]:
        """Return the most modules, one after the other, and of as many the ones with the most layers."""
        calls = sorted((call for call in self.calls if call.name in names), key=lambda call: call.end)
        ends = [call.end for call in calls]
        best: list[tuple[int, int, tuple[str, ...]]] = [(0, 0, ())]  # of the calls up to each
        for call in calls:
            count, layers, before = best[bisect_left(ends, call.start)]
            more = (count + 1, layers + len(self.layer_calls(call)), (*before, call.name))
            best.append(max(best[-1], more, key=lambda found: found[:2]))
        return list(best[-1][2])

    def in_order(self, names: Iterable[str]) -> bool:
        """Return whether each module ends before the next one starts."""
        calls = [call for name in names for call in self.named(name)]
        return all(before.end < after.start for before, after in pairwise(calls))

    def place(self, names: Sequence[str], call: _Call) -> int:
        """Return how many of these modules start before a call."""
        return sum(self.named(name)[0].start < call.start for name in names)

    def link(self, before: str, after: str) -> Link | None:
        """Return how one stage's input is made of the output of the other; None: by code between modules."""
        (a,), (b,) = self.named(before), self.named(after)
        state, time, through = a.written, a.end, []
        while state != b.read:
            between = (call for call in self.calls if time < call.start and call.end < b.start and call.read == state)
            step = next(between, None)
            if step is None or step.further or self.layer_calls(step) or len(self.named(step.name)) > 1:
                return None
            state, time = step.written, step.end
            through.append(step.module)
        if not all(key in a.further and _same(a.further[key], value) for key, value in b.further.items()):
            return None
        return Link(tuple(through), tuple(b.further))


def _same(one: Any, other: Any) -> bool:
    constant = isinstance(one, bool | int | float | str) and type(one) is type(other)
    return one is other or (constant and bool(one == other))


def _watch(module: nn.Module, layers: Collection[str], probe: Probe) -> _Run:
    """Record the calls of all modules while a probe is encoded."""
    run, time, active = _Run(layers=layers), iter(range(2**62)), []

    def begin(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def note(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            reads = args[0] if args and isinstance(args[0], torch.Tensor) else None
            call = _Call(
                name=name,
                module=called,
                start=next(time),
                reads=reads,
                read=_state(reads),
                storage=(0, 0) if reads is None else memory_state(reads),
                source=_edge(reads),
                further=dict(enumerate(args[1:], 1)) | kwargs,
            )
            run.calls.append(call)
            active.append(call)

        return note

    def finish(called: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        call = active.pop()
        first = output[0] if isinstance(output, tuple | list) and output else output
        call.end, call.output = next(time), first if isinstance(first, torch.Tensor) else None
        call.written, call.target = _state(call.output), _edge(call.output)
        call.kept = call.read == _state(call.reads)

    with ExitStack() as stack, warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of gradients that nobody asked for
        for name, part in module.named_modules():
            # First of all, as other hooks change what the module reads.
            stack.enter_context(part.register_forward_pre_hook(begin(name), prepend=True, with_kwargs=True))
            stack.enter_context(part.register_forward_hook(finish))
        try:
            features = probe()
        except Exception:  # there are things that cannot be done to a tensor with gradients
            run.calls.clear()
            active.clear()
            with torch.no_grad():
                features = probe()
    run.cuts = _cuts(features, {id(value) for value in module.parameters()})
    return run


def _state(tensor: torch.Tensor | None) -> State:
    return (0, 0) if tensor is None else (id(tensor), tensor._version)


def _edge(tensor: torch.Tensor | None) -> Edge | None:
    return None if tensor is None or tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def _cuts(features: torch.Tensor, parameters: Collection[int]) -> set[Edge]:
    """Return the edges of autograd's graph that every path from the features to the input takes.

    Args:
        features: What was encoded.
        parameters: The identities of the model's parameters, which are not the input.
    """
    order, edges = _graph(features.grad_fn)
    leads: set[Any] = set()  # the nodes that the input reaches
    for node in order:
        leaf = getattr(node, "variable", None)
        if any(after in leads for after, _ in edges[node]) or (leaf is not None and id(leaf) not in parameters):
            leads.add(node)
    entered: dict[Any, list[int]] = {node: [] for node in leads}
    for node in leads:
        for after, output in edges[node]:
            if after in leads:
                entered[after].append(output)
    entered.setdefault(features.grad_fn, []).append(features.output_nr)
    found, open_paths = set(), 1
    for node in reversed(order):
        if node not in leads:
            continue
        open_paths -= len(entered[node])
        if open_paths == 0 and len(set(entered[node])) == 1:
            found.add((node, entered[node][0]))
        open_paths += sum(after in leads for after, _ in edges[node])
    return found


def _graph(root: Any) -> tuple[list[Any], dict[Any, list[Edge]]]:
    """Return the nodes below a node of autograd's graph, each after all that it leads to, and the edges of each."""
    edges: dict[Any, list[Edge]] = {}
    order: dict[Any, None] = {}  # as a set that keeps its order
    stack = [] if root is None else [root]
    while stack:
        node = stack[-1]
        if node not in edges:
            edges[node] = [edge for edge in node.next_functions if edge[0] is not None]
            stack += [after for after, _ in edges[node] if after not in edges]
        else:
            order.setdefault(stack.pop())
    return list(order), edges


@contextmanager
def _first_embedding_as_source(module: nn.Module) -> Iterator[None]:
    """Let gradients start at the first embedding that is looked up."""
    found: list[torch.Tensor] = []

    def start(embedding: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        if found:
            return None
        found.append(output.detach().requires_grad_())
        return found[0]

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, nn.Embedding):
                stack.enter_context(part.register_forward_hook(start))
        yield
