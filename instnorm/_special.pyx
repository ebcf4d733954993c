# cython: language_level=3
"""Functions of each element that NumPy does not have, as ufuncs."""

cimport cython
from libc.math cimport erf as erf_of_double
from libc.math cimport erff as erf_of_float


@cython.ufunc
cdef cython.floating erf(cython.floating x) noexcept nogil:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    if cython.floating is float:
        return erf_of_float(x)
    return erf_of_double(x)
