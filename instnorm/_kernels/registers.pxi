# What the headers beside this file offer to the kernels; the comments there say what it does.

cdef extern from "_kernels/memory.hpp" namespace "instnorm" nogil:
    cdef bint HAS_FMA_INSTRUCTION "instnorm::HAS_FMA"
    cdef bint HAS_VECTORS "INSTNORM_HAS_VECTORS"

    cdef struct float16:
        unsigned short bits
    cdef struct bfloat16:
        unsigned short bits

    cdef cppclass doubles:
        doubles() noexcept
        doubles operator+(doubles) noexcept
        doubles operator-(doubles) noexcept
        doubles operator*(doubles) noexcept
        doubles operator/(doubles) noexcept
        doubles operator+(double) noexcept
        doubles operator*(double) noexcept
        doubles operator/(double) noexcept
    cdef cppclass octet[E]:
        octet() noexcept
        octet[E] operator+(octet[E]) noexcept
        octet[E] operator-(octet[E]) noexcept
        octet[E] operator*(octet[E]) noexcept
    cdef cppclass line[E]:
        line() noexcept
        line[E] operator+(line[E]) noexcept
        line[E] operator-(line[E]) noexcept
        line[E] operator*(line[E]) noexcept
    cdef cppclass bundle[E]:
        bundle() noexcept
        bundle[E] operator+(bundle[E]) noexcept
        bundle[E] operator-(bundle[E]) noexcept
        bundle[E] operator*(bundle[E]) noexcept

    double load_one[E](const E *x) noexcept
    void store_one[E](E *y, double value) noexcept
    octet[E] load_octet[E](const E *x) noexcept
    void store_octet[E](E *y, octet[E] value) noexcept
    line[E] load_line[E](const E *x) noexcept
    void store_line[E](E *y, line[E] value) noexcept
    line[E] load_part[E](const E *x, Py_ssize_t n) noexcept
    void store_part[E](E *y, line[E] value, Py_ssize_t n) noexcept
    void stream_line[E](E *y, line[E] value) noexcept
    bundle[E] load_bundle[E](const E *x) noexcept
    void store_bundle[E](E *y, bundle[E] value) noexcept
    void stream_bundle[E](E *y, bundle[E] value) noexcept
    void stream_end() noexcept
    doubles load_doubles(const double *x) noexcept
    doubles load_as_doubles[E](const E *x) noexcept
    void store_doubles(double *y, doubles value) noexcept
    line[E] load_numbers[E](const E *like, const void *numbers) noexcept

    # In the type that the elements of `like` are computed in, the only thing that it says.
    octet[E] splat_octet[E](const E *like, double value) noexcept
    bundle[E] splat_bundle[E](const E *like, double value) noexcept
    doubles splat_doubles(double value) noexcept
    octet[E] splat_number[E](const E *like, const void *numbers, int place) noexcept

    doubles fma(doubles a, doubles b, doubles c) noexcept
    octet[E] fma[E](octet[E] a, octet[E] b, octet[E] c) noexcept
    bundle[E] fma[E](bundle[E] a, bundle[E] b, bundle[E] c) noexcept
    octet[E] maximum[E](octet[E] a, octet[E] b) noexcept
    octet[E] normalized[E](
        octet[E] x, octet[E] centre, octet[E] scale, octet[E] scale_rest, octet[E] shift
    ) noexcept
    line[E] normalized[E](
        line[E] x, line[E] centre, line[E] scale, line[E] scale_rest, line[E] shift
    ) noexcept
    bundle[E] normalized[E](
        bundle[E] x, bundle[E] centre, bundle[E] scale, bundle[E] scale_rest, bundle[E] shift
    ) noexcept
    octet[E] gradient[E](
        octet[E] g, octet[E] x, octet[E] grad_mean, octet[E] grad_scale, octet[E] centre,
        octet[E] x_scale, octet[E] shift,
    ) noexcept
    line[E] gradient[E](
        line[E] g, line[E] x, line[E] grad_mean, line[E] grad_scale, line[E] centre,
        line[E] x_scale, line[E] shift,
    ) noexcept
    bundle[E] gradient[E](
        bundle[E] g, bundle[E] x, bundle[E] grad_mean, bundle[E] grad_scale, bundle[E] centre,
        bundle[E] x_scale, bundle[E] shift,
    ) noexcept
    doubles tail(doubles value, Py_ssize_t n) noexcept
    octet[E] tail[E](octet[E] value, Py_ssize_t n) noexcept
    bundle[E] tail[E](bundle[E] value, Py_ssize_t n) noexcept
    double total(doubles value) noexcept
    double total[E](bundle[E] value) noexcept
    double largest[E](octet[E] value) noexcept
    doubles fold[E](bundle[E] value) noexcept
    octet[E] fold_largest[E](bundle[E] value) noexcept
    doubles totals(const doubles *rows) noexcept
    doubles totals_of_octets[E](const octet[E] *rows) noexcept
    doubles widen[E](octet[E] value) noexcept
    octet[E] narrow[E](const E *like, doubles value) noexcept
    double rounded[E](const E *like, double value) noexcept

    bint all_within(doubles value, double least, double most) noexcept
    double reciprocal_root(double value) noexcept
    doubles reciprocal_root(doubles value) noexcept
    double zero_where_zero(double test, double value) noexcept
    doubles zero_where_zero(doubles test, doubles value) noexcept
    double not_negative(double value) noexcept
    doubles not_negative(doubles value) noexcept
    double toward_zero(double value) noexcept
    doubles toward_zero(doubles value) noexcept

cdef extern from "_kernels/memory.hpp" nogil:
    void instnorm_prefetch(const void *address) noexcept

cdef extern from "_kernels/machine.hpp" nogil:
    const int INSTNORM_HAS_OPENMP
    const char *INSTNORM_COMPILER
    long instnorm_l2_bytes() noexcept

# What arrays hold.
ctypedef fused element:
    float
    double
    float16
    bfloat16

# One statistic, or those of eight rows side by side.
ctypedef fused numbers:
    double
    doubles
