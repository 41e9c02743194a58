// f32 rows to packed rows (autograd/packed.h).
//   f8  an invocation encodes 16 values. In integers: round to nearest even, finite values saturating, on every device.
//   q8  eight invocations encode a group of up to 256 values, one block each: d = max|w| / 127 rounded to f16, and
//       q = w / d rounded to nearest, halves to even.
//   q4  eight invocations encode a block, one sub-block each: for each of some step widths near the range / 15, the values
//       are quantised and scale and minimum refitted by least squares; the best fit's scale and minimum, rounded to 6-bit
//       multiples of the block's d and dmin, then quantise the values again.
//@variant f8 F8=1
//@variant q8 Q8=1
//@variant q4 Q4=1
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "half.glsl"
#include "index.glsl"
#include "nan.glsl"
#include "quantize.args.h"

layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint FORMAT = 3;  // f8: 3 e4m3, 4 e5m2
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { uvec4 y[]; };
layout(push_constant) uniform Push { QuantizeArgs a; };

// Values [column, column + 4) of a row, zeros behind its end.
vec4 load(uint row, uint column) {
  const uint at = row * a.columns + column;
  if (a.columns % 4 == 0) return column < a.columns ? texelFetch(X, int(at / 4)) : vec4(0);
  vec4 v = vec4(0);
  for (uint r = 0; r < 4; r++) {
    if (column + r < a.columns) v[r] = texelFetch(X, int((at + r) / 4))[(at + r) % 4];
  }
  return v;
}

#ifdef F8
uint to_f8(uint u) {
  const bool e4m3 = FORMAT == 3;
  const uint bits = e4m3 ? 20 : 21, normal = e4m3 ? 121 : 113, largest = e4m3 ? 0x7e : 0x7b;
  const uint sign = u >> 24 & 0x80u, v = u & 0x7fffffffu;
  if (v >= 0x7f800000u) return sign | (v > 0x7f800000u || e4m3 ? 0x7fu : 0x7cu);  // e4m3 has no infinity
  if (v >= normal << 23) {
    const uint code = ((v + (1u << (bits - 1)) - 1u + (v >> bits & 1u)) >> bits) - ((normal - 1u) << (23 - bits));
    return sign | min(largest, code);
  }
  // The mantissa with its hidden bit, shifted to units of the least subnormal number.
  const uint shift = (e4m3 ? 141 : 134) - (v >> 23);
  if (shift > 24) return sign;
  const uint mantissa = (v & 0x7fffffu) | 0x800000u;
  const uint q = mantissa >> shift, rest = mantissa - (q << shift), half_unit = 1u << (shift - 1);
  return sign | (q + (rest > half_unit || (rest == half_unit && (q & 1u) == 1u) ? 1u : 0u));
}

void main() {
  const uint item = group_1d() * LOCAL + gl_LocalInvocationIndex;
  const uint row = item / a.row_texels, texel = item % a.row_texels;
  if (row >= a.rows) return;
  const uint scale_at = (a.columns + 3) / 4;
  uvec4 words;
  [[unroll]] for (uint c = 0; c < 4; c++) {
    const uint word = 4 * texel + c;
    const uvec4 u = floatBitsToUint(load(row, 4 * word));
    words[c] = word < scale_at    ? to_f8(u.x) | to_f8(u.y) << 8 | to_f8(u.z) << 16 | to_f8(u.w) << 24
               : word == scale_at ? floatBitsToUint(1.0)
                                  : 0;
  }
  y[item] = words;
}
#else

const uint GROUPS = LOCAL / 8;
uint group, part, row, column;  // part: block or sub-block of the group that this invocation has
bool mine;

void locate() {
  const uint per_row = (a.columns + 255) / 256, item = group_1d() * GROUPS + gl_LocalInvocationIndex / 8;
  row = item / per_row;
  group = item % per_row;
  part = gl_LocalInvocationIndex % 8;
  column = 256 * group + 32 * part;
  mine = row < a.rows && column < a.columns;
}

uint f16_bits(float x) { return to_f16(floatBitsToUint(x)); }

// A block that holds a value that isn't finite has a scale that isn't.
const uint kF16Nan = 0x7e00u;
bool special(vec4 x) { return any(equal(floatBitsToUint(x) & 0x7f800000u, uvec4(0x7f800000u))); }

#ifdef Q8
shared uint scales[LOCAL];

void main() {
  locate();
  vec4 v[8];
  float most = 0;
  bool odd = false;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    v[i] = mine ? load(row, column + 4 * i) : vec4(0);
    odd = odd || special(v[i]);
    const vec4 size = abs(v[i]);
    most = max(most, max(max(size.x, size.y), max(size.z, size.w)));
  }
  const uint bits = odd ? kF16Nan : f16_bits(most / 127);
  const float d = unpackHalf2x16(bits).x;
  scales[gl_LocalInvocationIndex] = bits;
  barrier();
  if (!mine) return;
  const uint at = row * a.row_texels;
  [[unroll]] for (uint t = 0; t < 2; t++) {
    uvec4 words;
    [[unroll]] for (uint c = 0; c < 4; c++) {
      const vec4 scaled = d > 0 ? v[4 * t + c] / d : vec4(0);
      const uvec4 q = uvec4(128 + clamp(roundEven(scaled), vec4(-127), vec4(127)));
      words[c] = q.x | q.y << 8 | q.z << 16 | q.w << 24;
    }
    y[at + 16 * group + 2 * part + t] = words;
  }
  if (part == 0) {
    const uint blocks = min(8, (a.columns - 256 * group) / 32);
    uvec4 words = uvec4(0);
    [[unroll]] for (uint b = 0; b < 8; b++) {
      if (b < blocks) words[b / 2] |= scales[gl_LocalInvocationIndex + b] << (16 * (b % 2));
    }
    y[at + a.columns / 16 + group] = words;
  }
}
#else
shared vec2 fits[LOCAL];        // (scale, minimum) of a sub-block: w = x q - y
vec4 v[8];

// Least squares (scale, minimum >= 0) for values quantised with a step of 1 / inverse from `low`; z: the squared error.
vec3 fit(float low, float inverse) {
  float q1 = 0, q2 = 0, x1 = 0, qx = 0, x2 = 0;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    const vec4 q = clamp(roundEven((v[i] - low) * inverse), vec4(0), vec4(15));
    q1 += dot(q, vec4(1));
    q2 += dot(q, q);
    x1 += dot(v[i], vec4(1));
    qx += dot(q, v[i]);
    x2 += dot(v[i], v[i]);
  }
  const float determinant = 32 * q2 - q1 * q1;
  float scale = determinant > 0 ? (32 * qx - q1 * x1) / determinant : 0;
  float offset = (x1 - scale * q1) / 32;
  if (offset > 0 || determinant <= 0) {
    offset = 0;
    scale = q2 > 0 ? qx / q2 : 0;
  }
  scale = max(scale, 0);
  float error = 0;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    const vec4 q = clamp(roundEven((v[i] - low) * inverse), vec4(0), vec4(15)), rest = scale * q + offset - v[i];
    error += dot(rest, rest);
  }
  return vec3(scale, -offset, error);
}

vec2 best_fit() {
  float low = 0, high = 0;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    low = min(low, min(min(v[i].x, v[i].y), min(v[i].z, v[i].w)));
    high = max(high, max(max(v[i].x, v[i].y), max(v[i].z, v[i].w)));
  }
  if (!(high > low)) return vec2(0);
  vec3 best = vec3((high - low) / 15, -low, 1e38);
  for (int t = -5; t <= 5; t++) {
    const vec3 f = fit(low, (15 + 0.3 * float(t)) / (high - low));
    if (f.z < best.z) best = f;
  }
  // Once more from where the best one put its grid.
  if (best.x > 0) {
    const vec3 f = fit(-best.y, 1 / best.x);
    if (f.z < best.z) best = f;
  }
  return best.xy;
}

void main() {
  locate();
  [[unroll]] for (uint i = 0; i < 8; i++) v[i] = mine ? load(row, column + 4 * i) : vec4(0);
  bool odd = false;
  [[unroll]] for (uint i = 0; i < 8; i++) odd = odd || special(v[i]);
  fits[gl_LocalInvocationIndex] = odd ? vec2(uintBitsToFloat(0x7fc00000u)) : best_fit();
  barrier();
  const uint first = gl_LocalInvocationIndex - part;
  vec2 most = vec2(0);
  odd = false;
  for (uint b = 0; b < 8; b++) {
    most = max(most, fits[first + b]);
    odd = odd || is_nan(fits[first + b].x);
  }
  const uvec2 d_bits = odd ? uvec2(kF16Nan) : uvec2(f16_bits(most.x / 63), f16_bits(most.y / 63));
  const vec2 d = vec2(unpackHalf2x16(d_bits.x).x, unpackHalf2x16(d_bits.y).x);
  // The 6-bit numbers of sub-block b; every invocation needs its own, the first all of them.
  const vec2 whole = mix(vec2(0), clamp(roundEven(fits[gl_LocalInvocationIndex] / max(d, vec2(1e-30))), vec2(0), vec2(63)),
                         greaterThan(d, vec2(0)));
  const vec2 affine = d * whole;
  uvec4 codes[2];
  [[unroll]] for (uint i = 0; i < 8; i++) {
    const vec4 scaled = affine.x > 0 ? (v[i] + affine.y) / affine.x : vec4(0);
    const uvec4 q = uvec4(clamp(roundEven(scaled), vec4(0), vec4(15)));
    codes[i / 4][i % 4] = q.x | q.y << 8 | q.z << 16 | q.w << 24;
  }
  barrier();
  fits[gl_LocalInvocationIndex] = whole;
  barrier();
  if (!mine) return;
  const uint at = row * a.row_texels;
  y[at + 8 * group + part] = uvec4(codes[0].xz, codes[1].xz) | uvec4(codes[0].yw, codes[1].yw) << 4;
  if (part == 0) {
    uvec3 words = uvec3(0);
    [[unroll]] for (uint b = 0; b < 8; b++) {
      const uvec2 n = uvec2(fits[first + b]), low = n & 15u, high = n >> 4;
      words[b / 4] |= (low.x | low.y << 4) << (8 * (b % 4));
      words.z |= (high.x | high.y << 2) << (4 * b);
    }
    y[at + a.columns / 32 + group] = uvec4(d_bits.x | d_bits.y << 16, words);
  }
}
#endif
#endif
