// Values to blocks. The 32-value types do what ggml's reference does, operation by operation, so that the
// bytes are the same. The K types search: for every part of a block some step widths are tried, scale and
// minimum of each fitted by least squares, and the best taken; when the parts' numbers are rounded, the
// block's own scales are fitted once more.
#include <algorithm>
#include <cmath>

#include "autograd/blocks.h"
#include "autograd/half.h"

namespace vkflux {
namespace {

uint8_t clipped(float q, int most) {
  return static_cast<uint8_t>(std::clamp(q, 0.0f, static_cast<float>(most)));
}

float inverse_of(float d) {
  const float id = d == 0 ? 0 : 1 / d;
  return std::isfinite(id) ? id : 0;
}

// d from the value that is furthest from zero, with its sign, so that it is met exactly.
void encode_signed(const float* x, QuantBlock& b, int zero) {
  float most = x[0];
  for (int i = 1; i < 32; ++i) {
    if (std::abs(x[i]) > std::abs(most)) most = x[i];
  }
  const float d = most / static_cast<float>(-zero), id = inverse_of(d);
  b.d = to_f16(d);
  for (size_t i = 0; i < 32; ++i)
    b.q[i] = clipped(std::trunc(x[i] * id + (static_cast<float>(zero) + 0.5f)), 2 * zero - 1);
}

void encode_with_min(const float* x, QuantBlock& b, int most) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float d = (*high - *low) / static_cast<float>(most), id = inverse_of(d);
  b.d = to_f16(d), b.dmin = to_f16(*low);
  for (size_t i = 0; i < 32; ++i) b.q[i] = clipped(std::trunc((x[i] - *low) * id + 0.5f), most);
}

// To the nearest whole number, halves to even, of |x| < 2^22. A sum, since the library's function is a call
// for every value and can't be part of vector code.
float nearest(float x) {
  constexpr float kUnits = 0x1.8p23f;
  return (x + kUnits) - kUnits;
}

// x q - y with y >= 0.
struct Fit {
  float x = 0, y = 0, error = INFINITY;
};

// Sums of eight values at a time, which compilers make vector code of.
constexpr size_t kLanes = 8;
using Lanes = std::array<float, kLanes>;
float sum(const Lanes& v) {
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

// The least squares fit for N values that are rounded to steps of 1 / inverse from `low` on.
template <size_t N>
Fit fit_with_min(const float* v, float most, float low, float inverse) {
  constexpr auto kCount = static_cast<float>(N);
  std::array<float, N> q;
  Lanes l1{}, l2{}, lv{}, lqv{};
  for (size_t i = 0; i < N; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float x = v[i + j], k = std::min(std::max(nearest((x - low) * inverse), 0.0f), most);
      q[i + j] = k;
      l1[j] += k, l2[j] += k * k, lv[j] += x, lqv[j] += k * x;
    }
  }
  const float q1 = sum(l1), q2 = sum(l2), v1 = sum(lv), qv = sum(lqv);
  const float determinant = kCount * q2 - q1 * q1;
  Fit f;
  float offset = 0;
  if (determinant > 0) {
    f.x = (kCount * qv - q1 * v1) / determinant;
    offset = (v1 - f.x * q1) / kCount;
  }
  if (determinant <= 0 || offset > 0) {
    offset = 0;
    f.x = q2 > 0 ? qv / q2 : 0;
  }
  f.x = std::max(f.x, 0.0f);
  f.y = -offset;
  Lanes errors{};
  for (size_t i = 0; i < N; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float rest = f.x * q[i + j] + offset - v[i + j];
      errors[j] += rest * rest;
    }
  }
  f.error = sum(errors);
  return f;
}

template <size_t N>
Fit best_with_min(const float* v, int most) {
  float low = 0, high = 0;
  for (size_t i = 0; i < N; ++i) low = std::min(low, v[i]), high = std::max(high, v[i]);
  if (!(high > low)) return {0, 0, 0};
  Fit best;
  const auto limit = static_cast<float>(most);
  const float reach = most == 3 ? 0.1f : 0.3f;  // of a step between two candidates
  for (int t = -5; t <= 5; ++t) {
    const Fit f = fit_with_min<N>(v, limit, low, (limit + reach * static_cast<float>(t)) / (high - low));
    if (f.error < best.error) best = f;
  }
  for (int again = 0; again < 2 && best.x > 0; ++again) {  // from where the best one put its steps
    const Fit f = fit_with_min<N>(v, limit, -best.y, 1 / best.x);
    if (f.error < best.error) best = f;
  }
  return best;
}

// Numbers of every part for its rounded scale and minimum.
void number_with_min(const float* v, QuantBlock& b, int part, int most) {
  const float d = from_f16(b.d), dmin = from_f16(b.dmin);
  for (size_t i = 0; i < 256; ++i) {
    const size_t k = i / static_cast<size_t>(part);
    const float x = d * static_cast<float>(b.scale[k]), y = dmin * static_cast<float>(b.min[k]);
    b.q[i] = clipped(x > 0 ? nearest((v[i] + y) / x) : 0, most);
  }
}

// d and dmin by least squares for the numbers that are there.
void refit_with_min(const float* v, QuantBlock& b, int part) {
  double aa = 0, ab = 0, bb = 0, av = 0, bv = 0;
  for (size_t i = 0; i < 256; ++i) {
    const size_t k = i / static_cast<size_t>(part);
    const double a = b.scale[k] * b.q[i], m = -static_cast<double>(b.min[k]), x = static_cast<double>(v[i]);
    aa += a * a, ab += a * m, bb += m * m, av += a * x, bv += m * x;
  }
  const double determinant = aa * bb - ab * ab;
  double d = aa > 0 ? av / aa : 0, dmin = 0;
  if (determinant > 1e-9 * aa * bb && determinant > 0) {
    d = (av * bb - bv * ab) / determinant;
    dmin = (bv * aa - av * ab) / determinant;
  } else if (bb > 0) {
    return;
  }
  if (!(d > 0) || dmin < 0) return;
  b.d = to_f16(static_cast<float>(d));
  b.dmin = to_f16(static_cast<float>(dmin));
}

double squared_error(const BlockType& t, const QuantBlock& b, const float* v) {
  std::array<float, 256> w;
  values_of(t, b, w.data());
  double error = 0;
  for (size_t i = 0; i < 256; ++i) {
    const double rest = static_cast<double>(w[i] - v[i]);
    error += rest * rest;
  }
  return error;
}

// Keeps the better of two blocks.
void keep_better(const BlockType& t, QuantBlock& b, const QuantBlock& other, const float* v) {
  if (squared_error(t, other, v) < squared_error(t, b, v)) b = other;
}

void encode_k_with_min(DType type, const float* v, QuantBlock& b, int part, int most, int largest) {
  std::array<Fit, 16> fits;
  const int parts = 256 / part;
  float scale = 0, min = 0;
  for (int k = 0; k < parts; ++k) {
    fits[static_cast<size_t>(k)] =
        part == 16 ? best_with_min<16>(v + k * part, most) : best_with_min<32>(v + k * part, most);
    scale = std::max(scale, fits[static_cast<size_t>(k)].x);
    min = std::max(min, fits[static_cast<size_t>(k)].y);
  }
  b.d = to_f16(scale / static_cast<float>(largest)), b.dmin = to_f16(min / static_cast<float>(largest));
  const float id = inverse_of(from_f16(b.d)), idmin = inverse_of(from_f16(b.dmin));
  for (int k = 0; k < parts; ++k) {
    const auto at = static_cast<size_t>(k);
    b.scale[at] = clipped(nearest(fits[at].x * id), largest);
    b.min[at] = clipped(nearest(fits[at].y * idmin), largest);
  }
  number_with_min(v, b, part, most);
  QuantBlock other = b;
  refit_with_min(v, other, part);
  number_with_min(v, other, part, most);
  keep_better(block_type(type), b, other, v);
}

// The scale, with its sign, of 16 values to numbers in [-zero, zero - 1].
float best_signed(const float* v, int zero) {
  float most = 0;
  for (int i = 0; i < 16; ++i) {
    if (std::abs(v[i]) > std::abs(most)) most = v[i];
  }
  if (std::abs(most) < 1e-30f) return 0;
  const auto limit = static_cast<float>(zero);
  float best = 0, best_gain = -1;
  for (int t = -9; t <= 9; ++t) {
    const float inverse = -(limit + 0.1f * static_cast<float>(t)) / most;
    Lanes lqv{}, lqq{};
    for (size_t i = 0; i < 16; i += kLanes) {
      for (size_t j = 0; j < kLanes; ++j) {
        const float x = v[i + j], q = std::min(std::max(nearest(x * inverse), -limit), limit - 1);
        lqv[j] += q * x, lqq[j] += q * q;
      }
    }
    // The squared error falls by this against zeros.
    const float qv = sum(lqv), qq = sum(lqq), gain = qq > 0 ? qv * qv / qq : 0;
    if (gain > best_gain) best_gain = gain, best = qq > 0 ? qv / qq : 0;
  }
  return best;
}

int scale_of(const QuantBlock& b, size_t k, bool six_bit) {
  return six_bit ? b.scale[k] - 32 : static_cast<int8_t>(b.scale[k]);
}

void number_signed(const float* v, QuantBlock& b, int zero, bool six_bit) {
  const float d = from_f16(b.d);
  for (size_t i = 0; i < 256; ++i) {
    const float x = d * static_cast<float>(scale_of(b, i / 16, six_bit));
    b.q[i] = clipped((x != 0 ? nearest(v[i] / x) : 0) + static_cast<float>(zero), 2 * zero - 1);
  }
}

void encode_k_signed(DType type, const float* v, QuantBlock& b, int zero, int largest) {
  const bool six_bit = type == DType::q3_k;
  std::array<float, 16> scales;
  float most = 0;
  for (size_t k = 0; k < 16; ++k) {
    scales[k] = best_signed(v + 16 * k, zero);
    if (std::abs(scales[k]) > std::abs(most)) most = scales[k];
  }
  b.d = to_f16(most / static_cast<float>(-largest));
  const float id = inverse_of(from_f16(b.d));
  for (size_t k = 0; k < 16; ++k) {
    const int s = static_cast<int>(
        std::clamp(nearest(scales[k] * id), -static_cast<float>(largest), static_cast<float>(largest - 1)));
    b.scale[k] = static_cast<uint8_t>(six_bit ? s + 32 : s);
  }
  number_signed(v, b, zero, six_bit);
  double sv = 0, ss = 0;
  for (size_t i = 0; i < 256; ++i) {
    const double s = scale_of(b, i / 16, six_bit) * (b.q[i] - zero);
    sv += s * static_cast<double>(v[i]), ss += s * s;
  }
  if (ss <= 0) return;
  QuantBlock other = b;
  other.d = to_f16(static_cast<float>(sv / ss));
  number_signed(v, other, zero, six_bit);
  keep_better(block_type(type), b, other, v);
}

}  // namespace

void encode_q4_0(const float* x, QuantBlock& b) {
  encode_signed(x, b, 8);
}
void encode_q4_1(const float* x, QuantBlock& b) {
  encode_with_min(x, b, 15);
}
void encode_q5_0(const float* x, QuantBlock& b) {
  encode_signed(x, b, 16);
}
void encode_q5_1(const float* x, QuantBlock& b) {
  encode_with_min(x, b, 31);
}

void encode_q8_0(const float* x, QuantBlock& b) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::abs(x[i]));
  const float d = most / 127, id = inverse_of(d);
  b.d = to_f16(d);
  for (size_t i = 0; i < 32; ++i) {
    // Halves away from zero.
    const float a = std::abs(x[i] * id), whole = std::floor(a), r = whole + std::floor(2 * (a - whole));
    b.q[i] = static_cast<uint8_t>(128 + static_cast<int>(x[i] < 0 ? -r : r));
  }
}

void encode_q2_k(const float* x, QuantBlock& b) {
  encode_k_with_min(DType::q2_k, x, b, 16, 3, 15);
}
void encode_q3_k(const float* x, QuantBlock& b) {
  encode_k_signed(DType::q3_k, x, b, 4, 32);
}
void encode_q4_k(const float* x, QuantBlock& b) {
  encode_k_with_min(DType::q4_k, x, b, 32, 15, 63);
}
void encode_q5_k(const float* x, QuantBlock& b) {
  encode_k_with_min(DType::q5_k, x, b, 32, 31, 63);
}
void encode_q6_k(const float* x, QuantBlock& b) {
  encode_k_signed(DType::q6_k, x, b, 32, 128);
}

}  // namespace vkflux
