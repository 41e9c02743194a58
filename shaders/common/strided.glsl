// Strided indexing (autograd/ops/strided.h). Needs push constants `a` with size[5], magic[5], shifts.
#ifndef VKFLUX_STRIDED_GLSL
#define VKFLUX_STRIDED_GLSL

const uint INNER_SPLAT = 0, INNER_VECTOR = 1, INNER_STEP = 2;

// n / a.size[d], exact for n < 2^31: integer division is slow where it isn't a multiplication.
uint divide(uint n, uint d) {
  uint high, low;
  umulExtended(n, a.magic[d], high, low);
  return (high + n) >> ((a.shifts >> (5u * d)) & 31u);
}

// Splits the flat index `rest` into coordinates, innermost first, and adds coordinate * stride to `index`.
#define STRIDED_INDEX1(rank, flat, index, stride)                  \
  {                                                                \
    uint rest_ = flat;                                             \
    [[unroll]] for (uint d_ = 0u; d_ + 1u < rank; ++d_) {          \
      const uint q_ = divide(rest_, d_);                           \
      index += (rest_ - q_ * a.size[d_]) * stride[d_];             \
      rest_ = q_;                                                  \
    }                                                              \
    index += rest_ * stride[rank - 1u];                            \
  }
#define STRIDED_INDEX2(rank, flat, index0, stride0, index1, stride1) \
  {                                                                  \
    uint rest_ = flat;                                               \
    [[unroll]] for (uint d_ = 0u; d_ + 1u < rank; ++d_) {            \
      const uint q_ = divide(rest_, d_);                             \
      const uint c_ = rest_ - q_ * a.size[d_];                       \
      index0 += c_ * stride0[d_];                                    \
      index1 += c_ * stride1[d_];                                    \
      rest_ = q_;                                                    \
    }                                                                \
    index0 += rest_ * stride0[rank - 1u];                            \
    index1 += rest_ * stride1[rank - 1u];                            \
  }

// Element i of a texel buffer of four-component texels.
#define ELEMENT(X, i) (texelFetch(X, int((i) >> 2))[(i) & 3u])
// Four elements from element i on, by an INNER_ mode; step: the distance of neighbours.
#define LOAD4(out, X, mode, i, step)                                                                 \
  if (mode == INNER_VECTOR) {                                                                        \
    out = texelFetch(X, int((i) >> 2));                                                              \
  } else {                                                                                           \
    out.x = ELEMENT(X, i);                                                                           \
    if (mode == INNER_SPLAT) {                                                                       \
      out = out.xxxx;                                                                                \
    } else {                                                                                         \
      out.y = ELEMENT(X, (i) + step);                                                                \
      out.z = ELEMENT(X, (i) + 2u * step);                                                           \
      out.w = ELEMENT(X, (i) + 3u * step);                                                           \
    }                                                                                                \
  }
#endif
