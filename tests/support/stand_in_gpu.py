"""A GPU that is none: tensors that keep their data on the CPU and behave as those of a GPU.

They call themselves `cuda`. They refuse to mix with tensors of the CPU, beyond single numbers, and
to be read by numpy without `.cpu()`. Everything that a method makes without naming the device is
made on the CPU, as torch does, and is refused where it meets them. What runs on it runs on a GPU as
far as devices are concerned, and its numbers must be those of the CPU.

It also counts the operations, each of which is a launch of a kernel or a few, and the waits: those
that bring a value back to the CPU, for which the whole queue must be worked off.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
_WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "repeat_interleave",
    "_linalg_check_errors",  # of what cuSOLVER reports
}
# These read their second argument on either device.
_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevices(RuntimeError):
    """What torch raises where tensors of two devices meet."""


class OnGpu(Tensor):
    """A tensor of the stand-in; `data_` holds its values on the CPU."""

    data_: Tensor

    @staticmethod
    def __new__(cls, data: Tensor) -> OnGpu:
        # A sparse matrix is told as a whole one.
        strided = data if data.layout == torch.strided else torch.empty(data.shape, device="meta")
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls,
            data.shape,
            strides=strided.stride(),
            storage_offset=strided.storage_offset(),
            dtype=data.dtype,
            device="cpu",
        )

    def __init__(self, data: Tensor) -> None:
        self.data_ = data
        if _counts is not None:
            _counts.hold(data)

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:
        return f"OnGpu({self.data_})"

    def get_device(self) -> int:
        return 0

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *_: Any) -> Any:
        self.numpy()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Counts:
    """What has run since the stand-in was switched on."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.held: dict[int, weakref.ref[Any]] = {}
        self.bytes = self.peak_bytes = 0

    def hold(self, data: Tensor) -> None:
        """Count the memory of a tensor until nothing holds it any more."""
        if data.layout != torch.strided:
            return
        storage = data.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.held or size == 0:
            return
        self.held[address] = weakref.ref(storage)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        weakref.finalize(storage, self.free, address, size)

    def free(self, address: int, size: int) -> None:
        self.bytes -= size
        self.held.pop(address, None)

    def add(self, func: Any, name: str, args: Any) -> None:
        if func.is_view or name in ("detach", "lift_fresh", "is_same_size"):
            return
        self.operations[name] += 1
        by_mask = name in _INDEX and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in _WAITS or by_mask:
            self.waits[name] += 1


_counts: _Counts | None = None


def _flat(values: Any) -> Iterator[Any]:
    """Arguments, those in lists too."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)([_map(function, each) for each in value])
    return function(value)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU's data; its results are on the stand-in."""
    tensors = [v for v in _flat((args, *kwargs.values())) if isinstance(v, Tensor)]
    name = func._schema.name.split("::")[1]
    foreign = [v for v in tensors if not isinstance(v, OnGpu) and v.ndim > 0]
    if name in _INDEX and isinstance(args[0], OnGpu):
        # An index on the CPU is sent to the GPU.
        foreign = [v for v in foreign if v.dtype not in (torch.int64, torch.bool)]
    if foreign and name != "copy_":
        raise MixedDevices(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}"
        )
    if _counts is not None:
        _counts.add(func, name, args)
    known = {id(v.data_): v for v in tensors if isinstance(v, OnGpu)}

    def outer(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, OnGpu):
            return value
        return known[id(value)] if id(value) in known else OnGpu(value)

    out = func(*_map(_inner, args), **{key: _inner(value) for key, value in kwargs.items()})
    if name == "copy_" and not isinstance(args[0], OnGpu):
        return args[0]
    return _map(outer, out)


def _inner(value: Any) -> Any:
    return value.data_ if isinstance(value, OnGpu) else value


def _within(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A function of tensors of the stand-in as a whole, on the CPU's data."""
    out = func(*_map(_inner, args), **{key: _inner(value) for key, value in kwargs.items()})
    return _map(lambda value: OnGpu(value) if isinstance(value, Tensor) else value, out)


class _Devices(TorchFunctionMode):
    """Calls that name a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return _to(*args, **kwargs)
        if func is Tensor.cuda:
            return _to(args[0], CUDA)
        if func is Tensor.new_tensor:  # it goes by no dispatcher
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            func, args = torch.tensor, args[1:]
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            try:
                return func(*args, **kwargs)
            except MixedDevices:
                given = [v for v in _flat((args, *kwargs.values())) if isinstance(v, Tensor)]
                if any(not isinstance(value, OnGpu) for value in given):
                    raise
                # All are on the GPU: what met them was made within, and would be there as well.
                return _within(func, args, kwargs)
        out = func(*args, **{**kwargs, "device": "cpu"})
        return out if isinstance(out, OnGpu) else _to(out, CUDA)


class _Sent(torch.autograd.Function):
    """A tensor on the other device."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, to_gpu: bool) -> Tensor:
        ctx.to_gpu = to_gpu
        return OnGpu(tensor.clone()) if to_gpu else tensor.data_.clone()  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Sent.apply(gradients[0], not ctx.to_gpu), None  # type: ignore[no-untyped-call]


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`Tensor.to` between the devices."""
    device, kind, rest = None, kwargs.pop("dtype", None), []
    for value in (*args, kwargs.pop("device", None), kwargs.pop("other", None)):
        if isinstance(value, Tensor):
            device, kind = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            kind = value
        elif isinstance(value, str | torch.device):
            device = torch.device(value)
        elif value is not None:
            rest.append(value)
    kwargs = {name: value for name, value in kwargs.items() if name == "memory_format"}
    gpu = isinstance(tensor, OnGpu) if device is None else device.type == "cuda"
    if gpu != isinstance(tensor, OnGpu):
        if _counts is not None and not gpu:
            _counts.waits["to the CPU"] += 1
        tensor = _Sent.apply(tensor, gpu)  # type: ignore[no-untyped-call]
    with torch._C.DisableTorchFunction():
        return tensor.to(kind or tensor.dtype, **kwargs)


@contextmanager
def stand_in_gpu(memory_bytes: int = 80 * 10**9) -> Iterator[_Counts]:
    """In this block torch sees a GPU of this memory; gives the counts of what runs on it."""
    global _counts
    replaced: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "mem_get_info": lambda *_: (memory_bytes, memory_bytes),
        "max_memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "get_device_name": lambda *_: "stand-in",
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        # Else a module moved to the stand-in would keep parameters of the CPU.
        stack.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            torch.__future__.get_overwrite_module_params_on_conversion(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Devices())
        before, _counts = _counts, _Counts()
        try:
            yield _counts
        finally:
            _counts = before
