"""What runs inside a runner: one program (a problem's reference or a candidate), driven by the referee's frames.

Every operation takes a frame and returns one. A failure of the program is an answer (`{"error": ...}`), described where it
happened; the referee decides what it means. Nothing that a runner says is believed beyond its role.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import linecache
import mmap
import os
import random
import sys
import threading
import time
import tokenize
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

from kernel_env.backends.ablation import alike, make_room, rebuilt, same, tensors
from kernel_env.backends.interpreter import causes, needs_device, programs_begun
from kernel_env.backends.loading import BuildFailed, BuildFunction, NeedsGpu, routed_builds
from kernel_env.backends.lookup import unwatched_lookup
from kernel_env.backends.provenance import Provenance
from kernel_env.backends.targets import target
from kernel_env.processes import name_process
from kernel_env.referee import code_pages, physics, signals, values
from kernel_env.referee.layout import leaves, paged
from kernel_env.referee.protocol import MAX_ERROR_TEXT, Channel, ChannelClosed, Frame
from kernel_env.schema import PRECISIONS

if TYPE_CHECKING:
    from kernel_env.backends.ahead import Ahead

MAX_OPERATORS = 1000
MOST_ASSEMBLY_BYTES = 3 << 20
"""Of an answer, which may have 4 MB."""
_NOTHING = contextlib.nullcontext()
BETWEEN = 4
"""Blocks that stay between those of a program, and as many holes, ..."""
KEPT_COPIES = 6
"""Of inputs and outputs, as many as the watch keeps at a time."""
SCATTERED = 6, 18
"""... of two to the power of these float32 elements: 256 bytes to 1 MiB."""
_seed_generator = torch.default_generator.manual_seed
"""Torch's own, as it is before a program that may replace it. `torch.manual_seed` does the same here and takes 50 times as long."""
_MODULE = {"reference": "kernel_env_problem", "candidate": "kernel_env_candidate"}


class Runner:
    """State of one loaded program. `handle` maps a frame to its answer."""

    def __init__(self, role: str, scratch: Path, build: BuildFunction, *, interpreter: bool) -> None:
        self.role = role
        self.scratch = scratch
        self._build = build
        self._interpreter = interpreter
        self._seeds = random.Random()
        self._programs = programs_begun()
        """Of kernels, before there is one of ours."""
        self._source = ""
        self._cuda = False
        """Whether its sources may be CUDA's."""
        self._dtype: torch.dtype | None = None
        """What floating-point inputs, parameters and buffers are brought to."""
        self._module: ModuleType | None = None
        self._path = scratch / f"{'problem' if role == 'reference' else 'candidate'}.py"
        self._entry: Any = None
        self._model: Any = None
        self._init_tree: Any = None
        self._inputs: list[Any] = []
        self._independent: list[bool] = []
        """Of the inputs drawn last, which are independent draws, scaled perhaps."""
        self._pending: tuple[Any, list[torch.Tensor]] | None = None
        self._outputs: list[Any] = []
        self._between: list[torch.Tensor] = []
        """Blocks that lie between the program's own in the heap."""
        self._provenance: Provenance | None = None
        self._looked_up: set[str] = set()
        """Names of functions that `ctypes` was asked for."""
        self._as_it_is: list[torch.Tensor] = []
        self._ahead: Ahead | None = None
        """Where its kernels are to be compiled for GPUs that are not here."""
        self._operations: dict[str, Callable[[Frame, Sequence[int]], Frame]] = {
            "load": self._load, "init_inputs": self._init_inputs, "init": self._init, "export_state": self._export_state,
            "sync_state": self._sync_state, "make_inputs": self._make_inputs, "take_inputs": self._take_inputs,
            "drop_inputs": self._drop_inputs, "scatter": self._scatter, "move_code": self._move_code, "call": self._call,
            "collect": self._collect, "write": self._write, "signals": self._signals,
            "trace": self._traced, "ablate": self._ablated, "compile": self._compiled_ahead, "work": self._work,
            "peaks": self._peaks,
        }  # fmt: skip

    def handle(self, frame: Frame, fds: Sequence[int]) -> Frame:
        operation = self._operations[frame["op"]]
        self._cuda |= bool(frame.get("cuda"))
        try:
            if frame.get("targets"):
                from kernel_env.backends.ahead import Ahead

                self._ahead = Ahead([target(name) for name in frame["targets"]])
            with torch.no_grad(), self._builds(), self._ahead.standing_in() if self._ahead else _NOTHING:
                return operation(frame, fds)
        except BaseException as error:  # noqa: BLE001 - the boundary: whatever a program raises, SystemExit too, is its answer
            return {"error": self._describe_error(error, frame["op"])}

    def _builds(self) -> contextlib.AbstractContextManager[None]:
        return routed_builds(self._build, self._watched, cuda=self._cuda)

    # ---------------------------------------------------------- program

    def _load(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Import the source as a real module from a real file: JIT compilers, dataclasses and pickling look there. What runs is the
        text that was judged: neither a byte-order mark nor the name of an encoding may make another of it."""
        sys.addaudithook(self._note_function)
        self._watcher()  # launches are watched from the first one on
        self._source = frame["code"]
        precision = frame.get("precision")
        self._dtype = getattr(torch, PRECISIONS[precision]) if precision else None
        text = self._source.encode()
        encoding = tokenize.detect_encoding(io.BytesIO(text).readline)[0]
        if encoding != "utf-8":
            raise SyntaxError(f"a source is read as UTF-8, not as {encoding}")
        self._path.write_bytes(text)
        name = _MODULE[self.role]
        spec = importlib.util.spec_from_file_location(name, self._path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        exec(compile(self._source, str(self._path), "exec", dont_inherit=True), vars(module))  # noqa: S102 - that is what runners do
        entry = getattr(module, frame["entry"], None)
        if entry is None:
            return {"error": {"kind": "entry", "type": "", "text": f"the module defines no {frame['entry']}"}}
        self._module, self._entry = module, entry
        return {}

    def _note_function(self, event: str, arguments: tuple[Any, ...]) -> None:
        if len(self._looked_up) < MAX_OPERATORS:
            self._looked_up.update(name[:200] for name in unwatched_lookup(event, arguments))

    def _init_inputs(self, frame: Frame, fds: Sequence[int]) -> Frame:
        torch.manual_seed(frame["seed"])
        return self._plan(self._function("get_init_inputs")())

    def _init(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Construct the entry class under the seed, with positional arguments or, from a dict, keyword arguments."""
        self._model, self._outputs = None, []
        with _mapped(fds) as memory:
            arguments = _copied(values.read(frame["arguments"], memory))
        torch.manual_seed(frame["seed"])
        self._model = self._entry(**arguments) if isinstance(arguments, dict) else self._entry(*arguments)
        if self._dtype is not None and isinstance(self._model, torch.nn.Module):
            self._model.to(self._dtype)
        return {}

    def _function(self, name: str) -> Any:
        function = getattr(self._module, name, None)
        if function is None:
            raise AttributeError(f"the problem defines no {name}()")
        return function

    # ---------------------------------------------------------- weights

    def _state(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict() if isinstance(self._model, torch.nn.Module) else {}
        return {k: v.detach() for k, v in state.items() if isinstance(v, torch.Tensor)}

    def _export_state(self, frame: Frame, fds: Sequence[int]) -> Frame:
        return self._plan({k: v.contiguous() for k, v in self._state().items()})

    def _sync_state(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """With `copy`, bring the model to the reference's weights: nothing to do when same-seed construction already gave them."""
        with _mapped(fds) as memory:
            wanted: dict[str, torch.Tensor] = values.read(frame["state"], memory)
            mine = self._state()
            if not wanted and not mine:
                return {"weights": "none"}
            plain = all(v.layout is torch.strided and not v.is_quantized for v in mine.values())
            if not plain or {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in wanted.items()}:
                return {"weights": "own"}  # packed in some other way
            if all(torch.equal(mine[k], v.to(mine[k].dtype)) for k, v in wanted.items()):
                return {"weights": "same_seed"}
            if not frame["copy"]:
                return {"weights": "differ"}
            self._model.load_state_dict({k: v.clone() for k, v in wanted.items()})
        return {"weights": "loaded"}

    # ---------------------------------------------------------- inputs

    def _make_inputs(self, frame: Frame, fds: Sequence[int]) -> Frame:
        made, plain = self._drawn(frame["seed"], frame["amplitude"])
        return {**self._plan(made), "plain": plain, "independent": self._independent}

    def _drawn(self, seed: int, amplitude: float) -> tuple[Any, list[bool]]:
        """New inputs, those that were drawn plainly times `amplitude`, and with random signs where it is negative; and for each
        tensor whether it was."""
        made, plain = self._drawn_as_written(seed, amplitude)
        return made if self._dtype is None else values.cast(made, self._dtype), plain

    def _drawn_as_written(self, seed: int, amplitude: float) -> tuple[Any, list[bool]]:
        torch.manual_seed(seed)
        with values.PlainDraws() as draws:
            made = self._function("get_inputs")()
        if not isinstance(made, (list, tuple, dict)):
            raise TypeError(f"get_inputs() returned {type(made).__name__}, expected a list")
        tensors: list[torch.Tensor] = []
        values.plan(made, tensors)
        once = len({id(tensor) for tensor in tensors}) == len(tensors)  # one tensor in two places has to stay one
        plain = [once and draws.is_plain(tensor) for tensor in tensors]
        self._independent = [once and draws.is_independent(tensor) for tensor in tensors]
        if amplitude < 0 and not all(plain):  # what is drawn otherwise may follow from the signs of the rest
            return made if isinstance(made, dict) else list(made), [False] * len(tensors)
        for tensor, scalable in zip(tensors, plain, strict=True):
            if scalable and amplitude < 0:
                tensor.mul_(torch.randint_like(tensor, 2).mul_(2).sub_(1))
            if scalable and amplitude != 1.0:
                tensor.mul_(abs(amplitude))
        return made if isinstance(made, dict) else list(made), plain

    def _signals(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """What the outputs of this problem are like, with inputs of this amplitude."""
        plain: list[bool] = []

        def draw(seed: int) -> Any:
            made, plain[:] = self._drawn(seed, frame["amplitude"])
            return made

        found = signals.signals(self._model, draw, tuple(frame["seeds"]), precise=frame["precise"])
        return {"signals": found, "scaled": any(plain)}

    def _work(self, frame: Frame, fds: Sequence[int]) -> Frame:
        return {"work": physics.work(self._model, self._drawn(frame["seed"], 1.0)[0])}

    def _peaks(self, frame: Frame, fds: Sequence[int]) -> Frame:
        return physics.peaks(getattr(torch, PRECISIONS[frame["precision"]]))

    def _take_inputs(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Keep a mapping with places for inputs, which are numbered on. It is this runner's own: writing to it shows as mutation.

        Its pages are all there before the first call, which must not pay for them.
        """
        memory, size = memoryview(_memory(fds[0])), frame["size"]
        for start in range(0, len(memory) - size + 1, paged(size)):
            self._inputs.append(values.read(frame["inputs"], memory[start : start + size]))
        return {}

    def _drop_inputs(self, frame: Frame, fds: Sequence[int]) -> Frame:
        self._outputs = []
        self._inputs.clear()
        return {}

    # ---------------------------------------------------------- calls

    def _scatter(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Drop the last outputs, and leave other blocks and holes in the heap than before, so that what comes next lies elsewhere.

        How tensors happen to lie is worth up to 5% of time, and differs between two processes that run one program. Where they
        move it evens out; Curtsinger and Berger, "Stabilizer", ASPLOS 2013.
        """
        self._outputs = []
        rng = random.Random(frame["seed"])
        blocks = [torch.zeros(int(2 ** rng.uniform(*SCATTERED))) for _ in range(2 * BETWEEN)]
        self._between = rng.sample(blocks, BETWEEN)
        return {}

    def _move_code(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """What is not moved, for want of memory, is still the same program."""
        moved = 0
        with contextlib.suppress(OSError):
            moved = code_pages.move(random.Random(frame["seed"]).randrange(code_pages.SPARE_PAGES))
        return {"moved": moved}

    def _call(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Run forward on each of the named inputs in turn; say where the outputs lie, and how long it took. They stay until the
        next call. The time is believed of a reference only, to learn what the exchange around it costs; so is that of an
        `empty` call, which runs nothing. Of several calls the first one counts as much as the others do: what it takes more,
        while threads wake and caches are cold, belongs to the exchange. With `beside`, earlier outputs stay alive meanwhile; in
        a `trial` it says whether random numbers were drawn. A message without seeds gets one of ours, so that what a program
        left in the generator does not tell it which calls are timed."""
        earlier = self._outputs if frame.get("beside") else []
        self._outputs = []
        model, outputs = _first if frame.get("empty") else self._model, self._outputs
        calls = list(zip(frame["indices"], frame.get("seeds") or [None] * len(frame["indices"]), strict=True))
        if not frame.get("seeds"):
            _seed_generator(self._seeds.getrandbits(63))
        times = [time.perf_counter()]
        for part in (calls[:1], calls[1:]):
            for index, seed in part:
                inputs = self._inputs[index]
                if seed is not None:
                    _seed_generator(seed)
                outputs.append(model(**inputs) if isinstance(inputs, dict) else model(*inputs))
            times.append(time.perf_counter())
        first_s, others_s = times[1] - times[0], times[2] - times[1]
        took_s = others_s / (len(calls) - 1) * len(calls) if len(calls) > 1 else first_s
        earlier.clear()
        answer = {"outputs": values.described_all(outputs), "took_s": took_s}
        if frame.get("trial"):
            now = torch.get_rng_state()
            _seed_generator(frame["seeds"][-1])
            answer["random"] = not torch.equal(now, torch.get_rng_state())
        return answer

    def _watched(self, module: ModuleType | None) -> None:
        self._watcher().loaded(module)

    def _watcher(self) -> Provenance:
        if self._provenance is None:
            self._provenance = Provenance()
            kind = sys.modules.get("triton.runtime.interpreter" if self._interpreter else "triton.runtime.jit")
            if kind is not None:
                self._provenance.triton(kind.InterpretedFunction if self._interpreter else kind.JITFunction)
        return self._provenance

    def _traced(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Forward once more on the first inputs, as it is. Says what ran."""
        watcher = self._watcher()
        make_room(KEPT_COPIES * sum(tensor.nbytes for tensor in tensors([self._inputs[0], self._outputs])))
        self._as_it_is = [tensor.clone() for tensor in tensors(watcher.traced(functools.partial(self._forward_once, frame)))]
        return {
            "launches": watcher.launches,
            "operators": sorted(watcher.operators)[:MAX_OPERATORS],
            "hidden": sorted(watcher.hidden)[:MAX_OPERATORS],
            "functions": sorted(self._looked_up),
            "reaches": watcher.reaches,
        }

    def _ablated(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """And with what its own kernels compute replaced by something else. After `_traced`. Without `compare` the output is kept
        instead, for the referee to compare. Where results are only `nudged`, every bit of the output counts."""
        watcher, as_it_is = self._watcher(), self._as_it_is
        if not watcher.works():
            return {"works": False}
        launches = watcher.launches
        result = watcher.ablated(functools.partial(self._forward_once, frame), frame["how"])
        if not frame["compare"]:
            self._outputs = [result]
            return {"outputs": [values.described(result)]}
        disturbed = list(tensors(result))
        nudged = frame["how"] == "nudged"
        matters = len(as_it_is) != len(disturbed) or not all(map(same if nudged else alike, as_it_is, disturbed))
        return {"works": True, "launched": watcher.nudged if nudged else watcher.launches > launches, "matters": matters}

    def _forward_once(self, frame: Frame) -> Any:
        _seed_generator(frame["seed"])
        inputs = self._inputs[0]
        return self._model(**inputs) if isinstance(inputs, dict) else self._model(*inputs)

    def _compiled_ahead(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Forward on the first inputs, whose launches are compiled for a target and run nothing. It may have `ended` early: what it
        computes from results means nothing."""
        assert self._ahead is not None
        self._ahead.choose(target(frame["target"]))
        ended = ""
        try:
            self._forward_once(frame)
        except Exception as error:  # whatever a program raises that goes on with results which are none
            if self._ahead.failed:
                raise
            ended = self._error_text(error)[:MAX_ERROR_TEXT]
        return {"kernels": self._ahead.found(MOST_ASSEMBLY_BYTES), "ended": ended}

    def _collect(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Write one of the last outputs into the mapping, if it is of the size that the referee expects."""
        answer = self._plan(values.in_order_of(frame["like"], self._outputs[frame["index"]]), values.packed)
        return self._write(frame, fds) if answer["size"] == frame["size"] else {}

    def _plan(self, value: Any, planner: values.Planner | None = None) -> Frame:
        tensors: list[torch.Tensor] = []
        tree, size = values.plan(value, tensors, planner=planner)
        self._pending = (tree, tensors)
        return {"tree": tree, "size": size}

    def _write(self, frame: Frame, fds: Sequence[int]) -> Frame:
        """Write what was planned last into the mapping that came with this frame."""
        assert self._pending is not None
        tree, tensors = self._pending
        self._pending = None
        if next(leaves(tree), None) is not None:
            values.write(tree, tensors, _memory(fds[0]))
        return {}

    # ---------------------------------------------------------- errors

    def _describe_error(self, error: BaseException, operation: str) -> Frame:
        if isinstance(error, BuildFailed):
            return {"kind": "build", "type": "BuildFailed", "text": str(error)}
        kind = ""
        if isinstance(error, values.Unsupported) and operation == "call":
            kind = "output"
        elif _is_out_of_memory(error):
            kind = "memory"
        elif isinstance(error, NeedsGpu):
            kind = "device"
        elif self._ahead is not None and self._ahead.failed:
            kind = "compile"
        elif self._interpreter and self._needs_device(error):
            kind = "device"
        return {"kind": kind, "type": _name(error, self._interpreter), "text": self._error_text(error)[:MAX_ERROR_TEXT]}

    def _needs_device(self, error: BaseException) -> bool:
        return needs_device(error, self._source, _MODULE[self.role], launched=programs_begun() > self._programs)

    def _error_text(self, error: BaseException) -> str:
        """The exception at the root (the interpreter wraps what a kernel raises), then the program's own lines that led to it."""
        with contextlib.suppress(Exception):  # a hostile __str__ may raise anything
            chain = list(causes(error)) if self._interpreter else [error]
            last = "".join(traceback.format_exception_only(chain[-1])).strip()
            last = last.replace(f"{self.scratch}{os.sep}", "")
            if isinstance(error, SystemExit):
                last = f"SystemExit: the module called sys.exit({error.code!r})"
            rows = [self._frame_text(f, line) for e in chain for f, line in _walk(e.__traceback__) if f == str(self._path)]
            return "\n".join([last, *list(dict.fromkeys(rows))[-8:]])
        return f"{type(error).__name__} (its text cannot be shown)"

    def _frame_text(self, filename: str, line: int) -> str:
        return f"  {self._path.name}, line {line}: {linecache.getline(filename, line).strip()[:200]}"


def _first(*inputs: Any, **named: Any) -> Any:
    return next(iter((*inputs, *named.values())), None)


def _name(error: BaseException, interpreter: bool) -> str:
    root = list(causes(error))[-1] if interpreter else error
    return type(root).__name__[:200]


def _walk(tb: TracebackType | None) -> Iterator[tuple[str, int]]:
    while tb is not None:
        yield tb.tb_frame.f_code.co_filename, tb.tb_lineno
        tb = tb.tb_next


def _is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, torch's own class, or the CPU allocator's refusal, which is a plain RuntimeError raised in C++."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _memory(fd: int) -> mmap.mmap:
    """The descriptor's memory, all of its pages."""
    return mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)


@contextlib.contextmanager
def _mapped(fds: Sequence[int]) -> Iterator[mmap.mmap | None]:
    """Map the descriptor that came with a frame. The mapping closes by itself when the last view goes."""
    yield mmap.mmap(fds[0], os.fstat(fds[0]).st_size) if fds else None


def _copied(value: Any) -> Any:
    """Own copies of tensors (constructor arguments must not stay tied to a mapping)."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return rebuilt(value, [_copied(v) for v in value])
    return value


def serve(channel: Channel, role: str, scratch: Path, *, interpreter: bool, isolation: Sequence[str] = ()) -> None:
    """Answer frames until the referee closes the channel. `isolation` names the layers that stand around us."""
    asking = threading.Condition()  # a program may ask from several threads, each for an answer of its own
    busy = False  # a thread that asks meanwhile has to wait for the next request: the referee listens to none before

    def build(request: Frame) -> Frame:
        with asking:
            asking.wait_for(lambda: busy)
            channel.send({"build": request})
            return channel.recv()[0]

    runner = Runner(role, scratch, build, interpreter=interpreter)
    named = functools.cache(name_process)
    channel.send({"ready": True, "isolation": list(isolation)})
    while True:
        try:
            frame, fds = channel.recv(accept_fds=True)
        except ChannelClosed:
            return
        named(f"ke-{role}")
        with asking:
            busy = True
            asking.notify_all()
        answer = runner.handle(frame, fds)
        for fd in fds:
            os.close(fd)
        with asking:
            busy = False
            channel.send(answer)
