"""What an exception says of the device: too little memory, a GPU that this process has lost, or one that it cannot use at all.

torch has classes for some of these since 2.5 (OutOfMemoryError) and 2.8 (AcceleratorError), and plain RuntimeErrors for the
rest: of cuBLAS, cuDNN, the CUDA driver and Triton. Those are known by their texts, which are the same from torch 2.6 to 2.13.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pipeline_ops.schema.errors import UserError, one_line

DeviceFault = Literal["memory", "lost", "unusable"]

OUT_OF_MEMORY = (
    "CUDA out of memory",  # in an error of the compiler's; else of torch.OutOfMemoryError
    ": out of memory",  # of the CUDA runtime and driver, and of Triton
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN before 9
    "ALLOCATION_FAILED",  # cuDNN 9
    "NVML_SUCCESS == ",  # of torch's allocator, which asks NVML for the text of its OutOfMemoryError and gets no answer
    "invalid configuration argument",  # more rows or blocks than a launch may have: 65,535 rows in torch's attention
    "can't allocate memory",  # on the host
    "std::bad_alloc",
)
UNUSABLE = (
    "no kernel image is available",
    "device kernel image is invalid",
    "invalid device function",
    "PTX was compiled with an unsupported toolchain",
    "invalid value for --gpu-architecture",  # NVRTC
    "CUDA driver version is insufficient",
    "driver on your system is too old",
    "Found no NVIDIA driver",
    "cudaGetDeviceCount()",
    "No CUDA GPUs are available",
    "no CUDA-capable device is detected",
    "CUDA-capable device(s) is/are busy or unavailable",
    "all CUDA-capable devices are busy or unavailable",
    "not compiled with CUDA",
)
# Errors of a GPU stay: each later call fails as well. Some do not (an argument that cuBLAS refuses), but which ones is not
# documented, and a new process is right for all.
LOST = (
    "CUDA error",
    "CUDA driver error",
    "Triton Error [CUDA]",
    "cuDNN error",
    "cuDNN Frontend error",
    "CUDNN_STATUS",
    "CUBLAS_STATUS",
)


def fault_of(error: BaseException) -> DeviceFault | None:
    """What is wrong with the device, if an exception is about it; None: it is about something else, such as a document.

    memory: of the GPU or the host; less at once may fit. lost: the process has to end before the GPU can be used again, as
    after an assertion or an illegal access on it. unusable: torch, the driver and the GPU do not fit each other.
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory"
    if type(error).__module__.startswith("triton."):  # a kernel that it cannot compile for this GPU
        return "unusable"
    if not isinstance(error, RuntimeError | AssertionError | torch.cuda.DeferredCudaCallError):
        return None
    text = str(error)
    if any(part in text for part in UNUSABLE):
        return "unusable"
    if any(part in text for part in OUT_OF_MEMORY):
        return "memory"
    is_accelerators = isinstance(error, getattr(torch, "AcceleratorError", ()))
    return "lost" if is_accelerators or any(part in text for part in LOST) else None


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory of the host or the GPU was exhausted."""
    return fault_of(error) == "memory"


def is_device_lost(error: BaseException) -> bool:
    """True if the GPU is unusable for this process, which then has to end: an assertion or a fault on the device."""
    return fault_of(error) == "lost"


def raise_if_lost(device: Any) -> None:
    """Raises the error of a GPU that this process has lost, waiting for it; for what goes another way after an error there.

    A text may be of an error that leaves the GPU as it is, such as Triton's for a kernel that it cannot launch.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def usable_device() -> Iterator[None]:
    """Turns errors in loading a model, of which no document can be the cause, into UserErrors; one of a lost GPU passes.

    Raises:
        UserError: the GPU cannot be used, or has too little memory left.
    """
    try:
        yield
    except Exception as error:
        reason = one_line(error)[:200]
        match fault_of(error):
            case "unusable":
                raise UserError(
                    f"compute.gpus_per_classifier: the GPU cannot be used: {reason}; install a torch that is built for it and"
                    f" its driver (pytorch.org/get-started/locally), or set it to 0 to label on CPUs"
                ) from error
            case "memory":
                raise UserError(
                    f"compute.classifiers: too little memory to load the model: {reason}; end what else takes the memory, or"
                    f" have fewer classifiers on a machine or GPU"
                ) from error
        raise
