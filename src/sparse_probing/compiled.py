"""Loops that NumPy cannot express, compiled with Numba on first use and cached on disk."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of arrays and numbers; without the lock of the interpreter, without fast-math;
    division by zero gives infinity or NaN, as in NumPy.

    The function is unwrapped first: the tests wrap every function to check its shapes, and Numba cannot look through that.
    """
    return numba.njit(cache=True, nogil=True, error_model="numpy")(inspect.unwrap(function))


def compiled_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for loops over rows, which may add in any order, so that the processor adds eight numbers at a time.

    Infinity and NaN keep their meaning; the error of a sum keeps its bound, but not its last digit from machine to machine.
    """
    free_order = {"reassoc", "contract", "nsz"}
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=free_order)(inspect.unwrap(function))
