"""Errors of GPUs are recognised by their messages: memory that ran out, and CUDA that is lost to the process."""

import pytest

from vosarena.base.errors import TrackerError
from vosarena.predictions.failures import breaks_cuda, classify, is_out_of_memory, reason_of

ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
OUT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.2 GiB is free.",
    "CUDA out of memory. Tried to allocate more than 1EB memory.",
    "CUDA out of memory. Allocation was preemptively rejected because it would exceed per_process_memory_fraction",
    "Allocation on device 0 would exceed allowed memory. (out of memory)",
    f"CUDA error: out of memory{ADVICE}",  # a context, a graph, pinned memory
    "CUDA driver error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "memory allocation failed with OOM on device 0",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "GET was unable to find an engine to execute this computation",
    "Not enough memory for workspace!",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
    "OpenCV(4.13.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1000 bytes in function 'alloc'",
]
BROKEN = [
    "device-side assert triggered",
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "unspecified launch failure in prior launch",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "Invalid access of peer GPU memory over nvlink or a hardware error",
    "the launch timed out and was terminated",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "context is destroyed",
    "the MPS client has been terminated by the server",
    "unknown error",
    "CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`",
]
HARMLESS = [
    f"CUDA error: no kernel image is available for execution on the device{ADVICE}",
    f"CUDA error: invalid argument{ADVICE}",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`",
    "The size of tensor a (4) must match the size of tensor b (5) at non-singleton dimension 1",
    "misaligned address in my own file format",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_memory_that_ran_out_is_recognised(message: str) -> None:
    error = RuntimeError(message)
    assert is_out_of_memory(error) and not breaks_cuda(error) and classify(error) == "out of memory"


@pytest.mark.parametrize("message", BROKEN)
def test_cuda_that_is_lost_to_the_process_is_recognised(message: str) -> None:
    error = RuntimeError(f"CUDA error: {message}{ADVICE}")
    assert breaks_cuda(error) and not is_out_of_memory(error) and classify(error) == "GPU error"
    assert reason_of(error) == f"RuntimeError: CUDA error: {message}"
    try:
        raise TrackerError("the tracker failed") from error
    except TrackerError as wrapped:
        assert breaks_cuda(wrapped) and classify(wrapped) == "GPU error"


@pytest.mark.parametrize("message", HARMLESS)
def test_other_errors_are_neither(message: str) -> None:
    error = RuntimeError(message)
    assert not is_out_of_memory(error) and not breaks_cuda(error) and classify(error) == "unexpected"
