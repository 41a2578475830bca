"""What errors of torch, cuBLAS, cuDNN, the CUDA driver and Triton mean: their texts, from torch 2.6 to 2.13."""

import pytest
import torch

from pipeline_ops.loading.device_errors import fault_of, is_device_lost, is_out_of_memory, raise_if_lost, usable_device
from pipeline_ops.schema.errors import UserError

# in torch 2.6 and 2.7 a RuntimeError
AcceleratorError: type[Exception] = getattr(torch, "AcceleratorError", RuntimeError)
HINT = """
Search for `{name}' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""


class OutOfResources(Exception):
    """As Triton's."""


OutOfResources.__module__ = "triton.runtime.errors"

MEMORY = [
    MemoryError("one document of 512 tokens alone is too much"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which"),
    AcceleratorError("CUDA error: out of memory" + HINT.format(name="cudaErrorMemoryAllocation")),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN Frontend error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError(
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1090, please report'
    ),
    AcceleratorError("CUDA error: invalid configuration argument" + HINT.format(name="cudaErrorInvalidConfiguration")),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("std::bad_alloc"),
]
LOST = [
    AcceleratorError("CUDA error: device-side assert triggered" + HINT.format(name="cudaErrorAssert")),
    AcceleratorError("of which only the class is known"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: uncorrectable NVLink error detected during the execution"),
    RuntimeError("CUDA error: unknown error"),
    RuntimeError("CUDA driver error: an illegal memory access was encountered"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k, &falpha)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasLtMatmul( ltHandle, computeDesc.descriptor())`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN Frontend error: [cudnn_frontend] Error: No execution plans support the graph."),
]
UNUSABLE = [
    AcceleratorError("CUDA error: no kernel image is available for execution on the device" + HINT.format(name="cudaError")),
    RuntimeError("CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    RuntimeError("Triton Error [CUDA]: device kernel image is invalid"),
    RuntimeError("CUDA error: invalid device function"),
    RuntimeError("nvrtc: error: invalid value for --gpu-architecture (-arch)"),
    RuntimeError("CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"),
    RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"),
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    RuntimeError("CUDA error: no CUDA-capable device is detected"),
    RuntimeError("Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices()"),
    AssertionError("Torch not compiled with CUDA enabled"),
    OutOfResources("out of resource: shared memory, Required: 270336, Hardware limit: 232448. Reducing block sizes may help."),
    torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: No CUDA GPUs are available"),
]
OTHERS = [
    IndexError("index out of range in self"),
    IndexError("token id 9, the model has embeddings for 5"),
    ValueError("out of memory"),
    RuntimeError("The size of tensor a (600) must match the size of tensor b (512) at non-singleton dimension 1"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    AssertionError(),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        *((error, "memory") for error in MEMORY),
        *((error, "lost") for error in LOST),
        *((error, "unusable") for error in UNUSABLE),
        *((error, None) for error in OTHERS),
    ],
    ids=lambda value: str(value)[:60].replace("\n", " "),
)
def test_error_is_of_the_device_or_not(error: BaseException, fault: str | None) -> None:
    assert fault_of(error) == fault
    assert (is_out_of_memory(error), is_device_lost(error)) == (fault == "memory", fault == "lost")


def test_error_of_torch_for_memory_that_the_cpu_lacks_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_error_of_torch_for_a_gpu_that_is_not_there_names_key_and_remedy() -> None:
    with (
        pytest.raises(UserError, match=r"^compute\.gpus_per_classifier: the GPU cannot be used: .*; install a torch"),
        usable_device(),
    ):
        torch.empty(1, device="cuda")


def test_error_in_loading_for_want_of_memory_names_key_and_remedy() -> None:
    message = r"^compute\.classifiers: too little memory .*Tried to allocate 2\.00 GiB"
    with pytest.raises(UserError, match=message) as caught, usable_device():
        raise MEMORY[1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [LOST[0], OTHERS[0], UserError("model.path: no head")])
def test_error_of_a_lost_gpu_or_another_thing_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, usable_device():
        raise error
    assert caught.value is error


def test_error_of_a_lost_gpu_is_raised_again_and_a_cpu_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: object) -> None:
        raise LOST[0]

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    raise_if_lost("cpu")
    with pytest.raises(type(LOST[0]), match="device-side assert"):
        raise_if_lost(torch.device("cuda", 0))
