# cython: language_level=3, boundscheck=False, wraparound=False
"""A bounded cache of array memory, so that large results need no fresh pages.

Design
------
The system hands out a large block as pages that fault one by one when first
written, which costs several times what normalizing the data does. So blocks that
NumPy frees are kept, by size, and handed out again.

NumPy asks an allocator that is set for the current context (its NEP 49). Inside a ``with``
block of `RecycledMemory` that is the one below. An array remembers the allocator that it
came from, so its memory finds its way back here whenever it dies.

Blocks below SMALLEST go straight to malloc. The others are rounded up to a size
class, at most an eighth more. Free blocks are linked through their first bytes, those
of a class and all of them by age: where one more would exceed the limit, those that
waited longest go back to the system. NumPy allocates and frees with the GIL held; the
lock, which all state below is read and written under, guards against builds where it
does not.

Large arrays of NumPy and PyTorch begin where a page begins. These blocks begin inside a
page: processors tell a load from the stores before it by the last twelve bits of their
addresses at first, and a kernel that reads and writes at the same place of a page waits
for itself (10 to 25 % of its time).
"""

cimport cython
cimport numpy as cnp
from cpython.object cimport PyTypeObject
from cpython.ref cimport Py_INCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cnp.import_array()

cdef extern from "memory.h":
    void instnorm_lock() noexcept nogil
    void instnorm_unlock() noexcept nogil
    void *instnorm_pages(size_t size) noexcept nogil

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *ctx, size_t size) noexcept nogil
        void *(*calloc)(void *ctx, size_t count, size_t size) noexcept nogil
        void *(*realloc)(void *ctx, void *block, size_t size) noexcept nogil
        void (*free)(void *ctx, void *block, size_t size) noexcept nogil

    ctypedef struct PyDataMem_Handler:
        char name[127]
        unsigned char version
        PyDataMemAllocator allocator

    ctypedef struct PyArray_Descr:
        pass

    object PyDataMem_SetHandler(object handler)
    object PyArray_NewFromDescr(
        PyTypeObject *subtype, PyArray_Descr *descr, int nd, const cnp.npy_intp *dims,
        const cnp.npy_intp *strides, void *data, int flags, void *obj,
    )

cdef extern from "pycapsule.h":
    object PyCapsule_New(void *pointer, const char *name, void *destructor)

cdef enum:
    CLASSES = 512       # eight for each power of two
    SMALLEST = 65536    # bytes of the smallest block that is kept
    PAGE = 4096
    LINE = 64           # bytes of a cache line
    QUARTER = 1024      # of a page

SMALLEST_BLOCK = SMALLEST

cdef struct Header:
    # What stands in the line before a block.
    void *base          # where the system's memory begins
    size_t capacity     # bytes of the block

cdef struct Block:
    # What stands in a free block.
    Block *newer        # freed after it
    Block *older        # freed before it
    Block *above        # of its class, freed after it
    Block *below        # of its class, freed before it

cdef Block *newest = NULL
cdef Block *oldest = NULL
cdef Block *tops[CLASSES]   # the newest of each class
cdef size_t cached_bytes = 0
cdef size_t limit_bytes = 0


# ------------------------------------------------------------- size classes

cdef inline int class_of(size_t size) noexcept nogil:
    """The number of the smallest size class that holds `size` bytes."""
    cdef int power = 0
    while (size - 1) >> (power + 4) > 0:
        power += 1
    # Now 8 * 2^power <= size - 1 < 16 * 2^power: the eighths between them are classes.
    return 8 * power + <int>((size - 1) >> power) - 7


cdef inline size_t size_of(int number) noexcept nogil:
    """The bytes of a size class."""
    return (<size_t>((number - 1) % 8 + 9)) << ((number - 1) // 8)


# ------------------------------------------------------------------- blocks

cdef size_t blocks_made = 0


cdef inline Header *header_of(void *block) noexcept nogil:
    return <Header *>(<char *>block - LINE)


cdef inline void *block_in(void *base, size_t start, size_t capacity) noexcept nogil:
    """The block that begins `start` bytes after the base; NULL if the base is."""
    cdef char *block = <char *>base + start
    if base == NULL:
        return NULL
    header_of(block).base = base
    header_of(block).capacity = capacity
    return block


cdef void *new_block(size_t size) noexcept nogil:
    """A block from the system, or NULL."""
    global blocks_made
    cdef size_t quarter
    if size < SMALLEST:
        return block_in(malloc(size + LINE), LINE, size)
    size = size_of(class_of(size))
    # Blocks in a row begin in different quarters of a page, none in the first.
    instnorm_lock()
    blocks_made += 1
    quarter = 1 + blocks_made % 3
    instnorm_unlock()
    return block_in(instnorm_pages(size + PAGE), LINE + QUARTER * quarter, size)


cdef inline void release(void *block) noexcept nogil:
    """Return a block to the system."""
    free(header_of(block).base)


# ---------------------------------------------------------------- the cache

cdef void link(Block *block) noexcept nogil:
    """Put a block that was freed into both lists."""
    global newest, oldest, cached_bytes
    cdef size_t capacity = header_of(block).capacity
    cdef int number = class_of(capacity)
    block.newer = NULL
    block.older = newest
    if newest == NULL:
        oldest = block
    else:
        newest.newer = block
    newest = block
    block.above = NULL
    block.below = tops[number]
    if block.below != NULL:
        block.below.above = block
    tops[number] = block
    cached_bytes += capacity


cdef void unlink(Block *block) noexcept nogil:
    """Take a block out of both lists."""
    global newest, oldest, cached_bytes
    cdef size_t capacity = header_of(block).capacity
    if block.newer == NULL:
        newest = block.older
    else:
        block.newer.older = block.older
    if block.older == NULL:
        oldest = block.newer
    else:
        block.older.newer = block.newer
    if block.above == NULL:
        tops[class_of(capacity)] = block.below
    else:
        block.above.below = block.below
    if block.below != NULL:
        block.below.above = block.above
    cached_bytes -= capacity


cdef void *take(int number) noexcept nogil:
    """A cached block of the class, or NULL."""
    cdef Block *block
    instnorm_lock()
    block = tops[number]
    if block != NULL:
        unlink(block)
    instnorm_unlock()
    return block


cdef void keep(void *block) noexcept nogil:
    """Cache a block, in place of older ones if that would exceed the limit."""
    cdef size_t limit
    instnorm_lock()
    limit = limit_bytes
    if header_of(block).capacity <= limit:
        link(<Block *>block)
        block = NULL
    instnorm_unlock()
    if block != NULL:
        release(block)
    else:
        trim(limit)


cdef void trim(size_t nbytes) noexcept nogil:
    """Return the oldest blocks to the system until at most `nbytes` are cached."""
    cdef Block *block
    while True:
        instnorm_lock()
        block = oldest if cached_bytes > nbytes else NULL
        if block != NULL:
            unlink(block)
        instnorm_unlock()
        if block == NULL:
            return
        release(block)


# ------------------------------------------------------- NumPy's four questions

cdef void *cache_malloc(void *ctx, size_t size) noexcept nogil:
    cdef void *block = NULL
    if size >= SMALLEST:
        block = take(class_of(size))
    return new_block(size) if block == NULL else block


cdef void *cache_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef void *block = cache_malloc(ctx, count * size)
    if block != NULL:
        memset(block, 0, count * size)
    return block


cdef void cache_free(void *ctx, void *block, size_t size) noexcept nogil:
    if block == NULL:
        return
    if header_of(block).capacity < SMALLEST:
        release(block)
    else:
        keep(block)


cdef void *cache_realloc(void *ctx, void *block, size_t size) noexcept nogil:
    cdef size_t capacity = 0 if block == NULL else header_of(block).capacity
    cdef void *moved
    # A block stays where less than half of it would be free.
    if capacity // 2 <= size <= capacity and block != NULL:
        return block
    moved = cache_malloc(ctx, size)
    if block == NULL:
        return moved
    if moved == NULL:
        return block if size <= capacity else NULL
    memcpy(moved, block, min(size, capacity))
    cache_free(ctx, block, 0)
    return moved


cdef PyDataMem_Handler handler
cdef bytes _name = b"instnorm cache"
memset(&handler, 0, sizeof(handler))
memcpy(handler.name, <char *>_name, len(_name))
handler.version = 1
handler.allocator.malloc = cache_malloc
handler.allocator.calloc = cache_calloc
handler.allocator.realloc = cache_realloc
handler.allocator.free = cache_free
cdef object capsule = PyCapsule_New(&handler, b"mem_handler", NULL)


# ------------------------------------------------------------- Python entries

@cython.final
@cython.auto_pickle(False)
cdef class RecycledMemory:
    """Let NumPy allocate arrays from the cache, in this thread, inside one ``with`` block.

    It is compiled because an exception from a signal handler may come between any two steps
    of the interpreter, as between entering and the ``try`` of a generator: the allocator would
    stay. Here the interpreter takes one step to enter, and is then inside the block. Where it
    checks for signals between the two, as from Python 3.14 on, what was entered is dropped,
    and is left then.
    """

    cdef object before

    def __enter__(self):
        if self.before is not None:
            raise RuntimeError("recycled memory is in use by another with block")
        self.before = PyDataMem_SetHandler(capsule)

    def __exit__(self, kind, value, traceback):
        self.leave()

    def __dealloc__(self):
        self.leave()

    cdef leave(self):
        if self.before is not None:
            PyDataMem_SetHandler(self.before)
            self.before = None


def empty_cache():
    """Return all cached memory to the system; arrays that are in use keep theirs."""
    trim(0)


def set_limit(size_t nbytes):
    """Cache at most `nbytes`; what is cached beyond that goes back to the system."""
    global limit_bytes
    instnorm_lock()
    limit_bytes = nbytes
    instnorm_unlock()
    trim(nbytes)


def get_limit():
    """Most bytes that are cached."""
    cdef size_t nbytes
    instnorm_lock()
    nbytes = limit_bytes
    instnorm_unlock()
    return nbytes


def get_cached():
    """Bytes that are cached now, waiting to be used again."""
    cdef size_t nbytes
    instnorm_lock()
    nbytes = cached_bytes
    instnorm_unlock()
    return nbytes


def array_at(size_t address, shape, strides, cnp.dtype dtype, owner):
    """An ndarray of memory that `owner` keeps alive; strides are in elements.

    For memory that its owner does not offer by a protocol without taking something back: a tensor
    that gave its memory to NumPy can never be resized again.
    """
    cdef cnp.npy_intp sizes[64]
    cdef cnp.npy_intp steps[64]
    cdef int axes = len(shape), i
    cdef cnp.ndarray array
    if axes > 64 or len(strides) != axes:
        raise ValueError(f"shape has {axes} axes, and strides {len(strides)}")
    for i in range(axes):
        sizes[i] = shape[i]
        steps[i] = strides[i] * dtype.itemsize
    Py_INCREF(dtype)  # the new array takes a reference
    array = PyArray_NewFromDescr(
        <PyTypeObject *>cnp.ndarray, <PyArray_Descr *>dtype, axes, sizes, steps, <void *>address,
        cnp.NPY_ARRAY_WRITEABLE, NULL,
    )
    cnp.set_array_base(array, owner)
    cnp.PyArray_UpdateFlags(array, cnp.NPY_ARRAY_UPDATE_ALL)
    return array
