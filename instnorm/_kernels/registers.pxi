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
    cdef cppclass bundle[E]:
        bundle() noexcept
        bundle[E] operator+(bundle[E]) noexcept
        bundle[E] operator-(bundle[E]) noexcept
        bundle[E] operator*(bundle[E]) noexcept

    double load_one[E](const E *x) noexcept
    void store_one[E](E *y, double value) noexcept
    void store_octet[E](E *y, octet[E] value) noexcept
    void put_line[E](E *y, line[E] value, bint past_caches) noexcept
    void store_bundle[E](E *y, bundle[E] value) noexcept
    void put_bundle[E](E *y, bundle[E] value, bint past_caches) noexcept
    void stream_end() noexcept
    doubles load_doubles(const double *x) noexcept
    doubles load_as_doubles[E](const E *x) noexcept
    void store_doubles(double *y, doubles value) noexcept

    # In the type that the elements of `like` are computed in, the only thing that it says.
    octet[E] splat_octet[E](const E *like, double value) noexcept
    bundle[E] splat_bundle[E](const E *like, double value) noexcept
    double coefficient[E](const E *like, double value) noexcept
    doubles splat_doubles(double value) noexcept
    octet[E] splat_number[E](const E *like, const void *numbers, int place) noexcept

    doubles fma(doubles a, doubles b, doubles c) noexcept
    octet[E] fma[E](octet[E] a, octet[E] b, octet[E] c) noexcept
    bundle[E] fma[E](bundle[E] a, bundle[E] b, bundle[E] c) noexcept
    octet[E] maximum[E](octet[E] a, octet[E] b) noexcept
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

cdef extern from "_kernels/epilogue.hpp" namespace "instnorm" nogil:
    cdef enum:
        NO_ACTIVATION
        RELU
        LEAKY_RELU
    cdef cppclass number:
        float single
        double exact
    number number_of(double value) noexcept
    cdef cppclass no_epilogue:
        pass
    cdef cppclass row_epilogue:
        const void *residual
        void *grad_residual
        const unsigned char *mask
        int activation
        bint slope_asked
        bint from_output
        bint cut_off
        number slope, inverse_slope
        number centre, scale, scale_rest, shift, sign_scale, sign_shift
    cdef cppclass pixel_epilogue:
        const void *residual
        void *grad_residual
        const unsigned char *mask
        int activation
        bint slope_asked
        bint from_output
        const void *slope
        const void *inverse_slope
        const void *centre
        const void *scale
        const void *scale_rest
        const void *shift
        const void *sign_scale
        const void *sign_shift
    cdef cppclass row_activation(row_epilogue):
        pass
    cdef cppclass pixel_activation(pixel_epilogue):
        pass
    cdef cppclass coefficients:
        void *centre
        void *scale
        void *scale_rest
        void *shift
        void *grad_mean
        void *grad_scale
        void *x_scale
        void *grad_shift
        void *slope
        void *inverse_slope
        void *sign_scale
        void *sign_shift
        bint through_statistics
    cdef cppclass bundle_scales[E]:
        pass
    cdef cppclass octet_scales[E]:
        pass
    cdef cppclass line_scales[E]:
        pass
    cdef cppclass bundle_grad_scales[E]:
        pass
    cdef cppclass octet_grad_scales[E]:
        pass
    cdef cppclass line_grad_scales[E]:
        pass
    bundle_scales[E] splat_scales[E](
        const E *like, double centre, double scale, double scale_rest, double shift
    ) noexcept
    octet_scales[E] octet_splat_scales[E](
        const E *like, double centre, double scale, double scale_rest, double shift
    ) noexcept
    bundle_grad_scales[E] splat_grad_scales[E](
        const E *like, double grad_mean, double grad_scale, double centre, double x_scale,
        double shift, bint through_statistics,
    ) noexcept
    cdef enum:
        COEFFICIENTS "instnorm::COEFFICIENTS"
    coefficients coefficients_in(void *memory, Py_ssize_t nbytes) noexcept
    void take_affine_map[E](
        const E *like, row_epilogue *out, const coefficients *k, int row
    ) noexcept
    doubles sign_of_scale[E](const E *like, doubles scale) noexcept
    doubles sign_shift[E](
        const E *like, doubles mean, doubles scale, doubles bias, doubles sign
    ) noexcept
    octet_scales[E] octet_scales_of[E](const E *like, const coefficients *k, int row) noexcept
    octet_grad_scales[E] octet_grad_scales_of[E](
        const E *like, const coefficients *k, int row
    ) noexcept
    line_scales[E] line_scales_of[E](const E *like, const coefficients *k, Py_ssize_t c) noexcept
    line_grad_scales[E] line_grad_scales_of[E](
        const E *like, const coefficients *k, Py_ssize_t c
    ) noexcept

    bundle[E] normalized_at[P, E](
        const P *after, const E *x, Py_ssize_t i, Py_ssize_t c, const bundle_scales[E] &k
    ) noexcept
    octet[E] normalized_at[P, E](
        const P *after, const E *x, Py_ssize_t i, Py_ssize_t c, const octet_scales[E] &k
    ) noexcept
    line[E] normalized_at[P, E](
        const P *after, const E *x, Py_ssize_t i, Py_ssize_t c, const line_scales[E] &k
    ) noexcept
    void normalize_part[P, E](
        const P *after, const E *x, E *y, Py_ssize_t n, Py_ssize_t c, const line_scales[E] &k
    ) noexcept
    void normalize_part[P, E](
        const P *after, const E *x, E *y, Py_ssize_t n, Py_ssize_t c, const octet_scales[E] &k
    ) noexcept
    bundle[E] gradient_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        const bundle_grad_scales[E] &k,
    ) noexcept
    octet[E] gradient_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        const octet_grad_scales[E] &k,
    ) noexcept
    line[E] gradient_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        const line_grad_scales[E] &k,
    ) noexcept
    void differentiate_part[P, E](
        const P *after, const E *grad_output, const E *x, E *grad_input, Py_ssize_t n,
        Py_ssize_t c, const line_grad_scales[E] &k,
    ) noexcept
    void differentiate_part[P, E](
        const P *after, const E *grad_output, const E *x, E *grad_input, Py_ssize_t n,
        Py_ssize_t c, const octet_grad_scales[E] &k,
    ) noexcept
    void factors_of_part[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t n, octet[E] centre,
        octet[E] *g, octet[E] *d,
    ) noexcept
    bundle[E] difference_at[P, E](
        const P *after, const E *x, Py_ssize_t i, bundle[E] centre
    ) noexcept
    doubles difference_at[P, E](
        const P *after, const E *x, Py_ssize_t i, doubles centre
    ) noexcept
    void factors_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        bundle[E] centre, bundle[E] *g, bundle[E] *d,
    ) noexcept
    void factors_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        octet[E] centre, octet[E] *g, octet[E] *d,
    ) noexcept
    void factors_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        doubles centre, doubles *g, doubles *d,
    ) noexcept
    void factors_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c,
        double centre, double *g, double *d,
    ) noexcept
    doubles slopes_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c
    ) noexcept
    double slope_at[P, E](
        const P *after, const E *grad_output, const E *x, Py_ssize_t i, Py_ssize_t c
    ) noexcept

    double ended_one[E](
        const no_epilogue *after, const E *like, Py_ssize_t i, Py_ssize_t place, double value
    ) noexcept
    double ended_one[E](
        const row_epilogue *after, const E *like, Py_ssize_t i, Py_ssize_t place, double value
    ) noexcept
    double ended_one[E](
        const row_activation *after, const E *like, Py_ssize_t i, Py_ssize_t place, double value
    ) noexcept
    void terms_one[E](
        const no_epilogue *after, const E *grad_output, const E *x, Py_ssize_t i,
        Py_ssize_t place, double centre, double *g, double *d, double *slope,
    ) noexcept
    void terms_one[E](
        const row_epilogue *after, const E *grad_output, const E *x, Py_ssize_t i,
        Py_ssize_t place, double centre, double *g, double *d, double *slope,
    ) noexcept
    void terms_one[E](
        const row_activation *after, const E *grad_output, const E *x, Py_ssize_t i,
        Py_ssize_t place, double centre, double *g, double *d, double *slope,
    ) noexcept
    void store_grad_residual_one[E](
        const no_epilogue *after, const E *like, Py_ssize_t i, double g
    ) noexcept
    void store_grad_residual_one[E](
        const row_epilogue *after, const E *like, Py_ssize_t i, double g
    ) noexcept
    void store_grad_residual_one[E](
        const row_activation *after, const E *like, Py_ssize_t i, double g
    ) noexcept
    bint keeps(const no_epilogue *after, Py_ssize_t i) noexcept
    bint keeps(const row_epilogue *after, Py_ssize_t i) noexcept
    bint keeps(const pixel_epilogue *after, Py_ssize_t i) noexcept
    bint goes_on(const no_epilogue *after) noexcept
    bint goes_on(const row_epilogue *after) noexcept
    Py_ssize_t counted(const no_epilogue *after, Py_ssize_t n) noexcept
    Py_ssize_t counted(const row_epilogue *after, Py_ssize_t n) noexcept
    Py_ssize_t count_nonzero(const unsigned char *mask, Py_ssize_t n) noexcept
    void spread_mask(
        const unsigned char *mask, Py_ssize_t pixels, Py_ssize_t channels, unsigned char *out
    ) noexcept
    Py_ssize_t first_counted(const no_epilogue *after, Py_ssize_t n) noexcept
    Py_ssize_t first_counted(const row_epilogue *after, Py_ssize_t n) noexcept
    no_epilogue advanced(const no_epilogue *after, Py_ssize_t n, Py_ssize_t itemsize) noexcept
    row_epilogue advanced(const row_epilogue *after, Py_ssize_t n, Py_ssize_t itemsize) noexcept
    row_activation advanced(
        const row_activation *after, Py_ssize_t n, Py_ssize_t itemsize
    ) noexcept
    pixel_activation advanced(
        const pixel_activation *after, Py_ssize_t n, Py_ssize_t itemsize
    ) noexcept
    pixel_epilogue advanced(
        const pixel_epilogue *after, Py_ssize_t n, Py_ssize_t itemsize
    ) noexcept

cdef extern from "_kernels/memory.hpp" nogil:
    void instnorm_prefetch(const void *address) noexcept
    void instnorm_prefetch_bundle(const float *address) noexcept
    void instnorm_prefetch_bundle(const double *address) noexcept
    void instnorm_prefetch_bundle(const float16 *address) noexcept
    void instnorm_prefetch_bundle(const bfloat16 *address) noexcept

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

# What follows the affine map, of rows and of pixels.
ctypedef fused row_kind:
    no_epilogue
    row_activation
    row_epilogue

ctypedef fused pixel_kind:
    no_epilogue
    pixel_activation
    pixel_epilogue
