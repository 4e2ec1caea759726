"""Out of memory is an outcome: recognised by what the allocators say, with the bytes asked for."""

from __future__ import annotations

import re

import torch

_MIB = 1024 * 1024
_UNITS = {"bytes": 1 / _MIB, "KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "TiB": 1024.0 * 1024}
_PHRASES = (
    "out of memory",  # CUDA's allocator and driver
    "not enough memory",  # torch's CPU allocator: "DefaultCPUAllocator: not enough memory"
    "can't allocate memory",  # the same, another build
    "std::bad_alloc",
    "cannot allocate memory",  # errno ENOMEM
    "failed to allocate",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_host_allocation_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_alloc_failed",
    "unable to find a valid cudnn algorithm",  # cuDNN finds no algorithm whose workspace fits
    "could not create a primitive",  # oneDNN, when its scratchpad cannot be had
    "could not create a memory object",
    "unable to allocate",  # numpy
)
_ASKED = (
    re.compile(r"tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE),
    re.compile(r"you tried to allocate (\d+) (bytes)", re.IGNORECASE),
    re.compile(r"unable to allocate ([\d.]+) (bytes|KiB|MiB|GiB|TiB)", re.IGNORECASE),
)


def is_out_of_memory(error: BaseException) -> bool:
    """True for every way in which torch, its libraries, numpy and Python say: no more memory."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    text = str(error).lower()
    return any(phrase in text for phrase in _PHRASES)


def requested_mib(error: BaseException) -> float | None:
    """The allocation that failed, in MiB, where the message tells."""
    for pattern in _ASKED:
        found = pattern.search(str(error))
        if found:
            return float(found.group(1)) * _UNITS[found.group(2)]
    return None
