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
