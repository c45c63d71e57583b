"""Devices: initialises CUDA in a worker that waits for its run, so that the run finds it done. Without torch too: the
primary context belongs to the process, and whatever library comes later shares it."""

from __future__ import annotations

import ctypes
import sys

LIBRARY = "libcuda.so.1"


class CudaError(Exception):
    """A call of the driver that failed."""


def warm_up() -> dict[str, int]:
    """Retains the primary context of each device, and says how much memory is free on the one that has the least."""
    driver = ctypes.CDLL(LIBRARY)
    check(driver, driver.cuInit(0), "cuInit")
    count = ctypes.c_int()
    check(driver, driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value == 0:
        raise CudaError("the driver shows no device")
    # The first one last, so that it is the current one afterwards.
    memory = [retain(driver, ordinal) for ordinal in reversed(range(count.value))]
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda is not None:
        torch.cuda.init()
    free, total = min(memory)
    return {"free": free, "total": total}


def retain(driver: ctypes.CDLL, ordinal: int) -> tuple[int, int]:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    check(driver, driver.cuDeviceGet(ctypes.byref(device), ordinal), "cuDeviceGet")
    check(driver, driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
    check(driver, driver.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    check(driver, driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value, total.value


def check(driver: ctypes.CDLL, result: int, what: str) -> None:
    if result != 0:
        name = ctypes.c_char_p()
        driver.cuGetErrorName(result, ctypes.byref(name))
        raise CudaError(f"{what}: {(name.value or b'unknown error').decode()} ({result})")
