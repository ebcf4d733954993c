# How many threads a compiled module uses: what `threads.py` sets in each of them.

cdef int thread_count = 1
cdef bint threads_allowed = INSTNORM_HAS_OPENMP


def set_num_threads(int n):
    """Use at most n threads in the calls that follow."""
    global thread_count
    thread_count = n


def get_num_threads():
    """Threads that a large input is shared among; 1 without OpenMP, or after a fork."""
    return thread_count if threads_allowed else 1


def forbid_threads():
    """Stay on the calling thread from now on: in a forked child, libgomp would hang."""
    global threads_allowed
    threads_allowed = False


cdef inline int threads_for(double work, double least) noexcept nogil:
    """One, where there is less than `least` to do: then a team costs more than it gives."""
    return thread_count if threads_allowed and work >= least else 1
