# Sizes and limits of the kernels, each with the reason for its value.

cdef enum:
    # Elements of a row that are summed around one pilot: 16 KiB of float32, which stay in the
    # first-level cache should they have to be summed once more.
    BLOCK = 4096
    # Elements of a row that are written in the order of memory. Of a longer row the last so many
    # are written first: they were read last, and the second-level cache still has them.
    CHUNK = 32768
    # Bundles that are added up in the input's own precision before double takes over. A float32
    # sum of n numbers is off by about 0.3 sqrt(n) units in the last place.
    FLUSH = 16
    # Bundles whose mean is a block's pilot, spread over the block.
    PILOT_BUNDLES = 4
    # Elements up to which rows are taken eight at a time. Few elements do not average rounding
    # errors out: their sums are in double.
    SHORT = 256
    # Rows that are taken together: as many as a vec of doubles has places.
    GROUP = 8

    # Pixels of channels-last memory that are added to the sums of eight channels before these go
    # back to memory.
    TOGETHER = 4
    # Bytes ahead of what is read, and of what is written into the caches, that are asked for: the
    # hardware's own prefetching ends with each page of 4 KiB.
    AHEAD = 4096
    # Bytes of a row up to which the next one is asked for while this one is written: both stay
    # in the first-level cache.
    NEXT_ROW = 8192
    # Elements that several pixels have at most if they are taken for one wide pixel.
    WIDEST = 2048
    # Elements of a block in channels-last memory, about.
    PIXEL_BLOCK = 32768
    # Below so many elements a team of threads costs more than it gives. A team also waits, for
    # milliseconds, where another library's idle threads spin on the processors, as OpenBLAS's
    # do after each matrix product: so not for what takes less.
    SERIAL_BELOW = 262144
    # Elements up to which checks in Python cost more than the kernel: these arrays have entries
    # of their own.
    SMALL = 16384
    # Bytes, of all arrays that a pass reads and writes, beyond which it writes past the caches.
    # Less in channels-last memory, where a sample is read again when all of it was read. And
    # bytes of a row that is worth it: each row begins and ends with stores that are not streamed.
    STREAM_ABOVE = 100663296
    STREAM_PIXELS_ABOVE = 25165824
    STREAM_ROW = 2048
    # Rows for each thread from which on no thread waits long for another that has one row more.
    ROWS_PER_THREAD = 4

# A sum of squares is that of differences from the pilot. If the pilot misses the mean by k
# standard deviations, it is 1 + k^2 times what the variance needs, and so is its rounding
# error. At k = 1, where sum1^2 / n is this part of sum2, the block is summed once more around
# its mean.
cdef double PILOT_MISSED = 0.5
# float64 sums are not taken once more for an outlier's sake, and keep closer to the mean.
cdef double PILOT_MISSED_DOUBLE = 0.25

# float32 squares and products: where a sum leaves this range, some may have overflowed, or have
# lost digits below the normal numbers (1.2e-38), and are summed in double. The lower limit is
# for each of n elements.
cdef double FLOAT_SUM_LEAST = 1e-28
cdef double FLOAT_SUM_MOST = 1e37
# The part of a block's squares beyond which what one lane adds up between two
# flushes has so much of them that its rounding errors are not averaged out by those of others.
cdef double OUTLIER = 0.125
# A scale that float32 holds as well as its rest, which is 2^-24 of it, and the differences that
# it multiplies.
cdef double FLOAT_SCALE_LEAST = 1e-28
cdef double FLOAT_SCALE_MOST = 1e36
# float64: where rstd leaves this range, squares of differences may have left that of double, or
# rstd^2 times some weight may do. Such rows are computed in units of a power of two.
cdef double RSTD_LEAST = 1e-100
cdef double RSTD_MOST = 1e100
# Exponents of such units, whose inverses double has as well.
cdef int UNIT_EXPONENT = 1022
# The part of a scale by which the scale's rest is enlarged, so that it is never 0 and has the
# scale's sign: the difference of an infinite x from the mean then stays infinite. 2^-40 is far
# below float32's rounding.
cdef double REST_NUDGE = 9.094947017729282e-13
