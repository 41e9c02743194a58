// One invocation per (image, group): statistics from the partial sums, then per channel the coefficients of the second pass.
// COEF[batch][4][channels]: scale, shift (y = x scale + shift before the activation), mean, rstd.
// Backward: COEF becomes D[batch][3][channels]: dx = dz D0 + x D1 + D2.
//@variant f32
//@variant bwd BACKWARD=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "group_norm.args.h"

layout(local_size_x = 32) in;
layout(set = 0, binding = 0, std430) readonly buffer Sums { float sums[]; };  // [batch][chunks][2][channels]
layout(set = 0, binding = 1, std430) readonly buffer W { float w[]; };
#ifdef BACKWARD
layout(set = 0, binding = 2, std430) readonly buffer C { float coef[]; };
layout(set = 0, binding = 3, std430) writeonly buffer D { float d[]; };
#else
layout(set = 0, binding = 2, std430) readonly buffer B { float bias[]; };
layout(set = 0, binding = 3, std430) readonly buffer X { float x[]; };
layout(set = 0, binding = 4, std430) writeonly buffer C { float coef[]; };
#endif
layout(push_constant) uniform Push { GroupNormArgs a; };

void main() {
  uint i = gl_GlobalInvocationID.x;
  if (i >= a.batch * a.groups) return;
  uint b = i / a.groups, width = a.channels / a.groups, c0 = (i % a.groups) * width;
  float count = float(a.pixels) * float(width);
#ifdef BACKWARD
  float m0 = 0.0, m1 = 0.0;  // mean of dz w, and of dz w xhat
  for (uint c = c0; c < c0 + width; ++c) {
    float s0 = 0.0, s1 = 0.0;
    for (uint k = 0; k < a.chunks; ++k) {
      uint row = (b * a.chunks + k) * 2 * a.channels + c;
      s0 += sums[row];
      s1 += sums[row + a.channels];
    }
    m0 += w[c] * s0;
    m1 += w[c] * s1;
  }
  m0 /= count;
  m1 /= count;
  for (uint c = c0; c < c0 + width; ++c) {
    float mean = coef[(b * 4 + 2) * a.channels + c], rstd = coef[(b * 4 + 3) * a.channels + c];
    d[(b * 3 + 0) * a.channels + c] = rstd * w[c];
    d[(b * 3 + 1) * a.channels + c] = -rstd * rstd * m1;
    d[(b * 3 + 2) * a.channels + c] = rstd * (mean * rstd * m1 - m0);
  }
#else
  // Channel by channel into (mean, sum of squared differences), by Chan's update.
  float mean = 0.0, m2 = 0.0, seen = 0.0, pixels = float(a.pixels);
  for (uint c = c0; c < c0 + width; ++c) {
    float s0 = 0.0, s1 = 0.0;
    for (uint k = 0; k < a.chunks; ++k) {
      uint row = (b * a.chunks + k) * 2 * a.channels + c;
      s0 += sums[row];
      s1 += sums[row + a.channels];
    }
    float shifted = s0 / pixels, channel_mean = x[b * a.pixels * a.channels + c] + shifted;
    float channel_m2 = max(s1 - s0 * shifted, 0.0), delta = channel_mean - mean, total = seen + pixels;
    m2 += channel_m2 + delta * delta * seen * pixels / total;
    mean += delta * pixels / total;
    seen = total;
  }
  float rstd = inversesqrt(m2 / count + a.eps);
  for (uint c = c0; c < c0 + width; ++c) {
    coef[(b * 4 + 0) * a.channels + c] = rstd * w[c];
    coef[(b * 4 + 1) * a.channels + c] = bias[c] - mean * rstd * w[c];
    coef[(b * 4 + 2) * a.channels + c] = mean;
    coef[(b * 4 + 3) * a.channels + c] = rstd;
  }
#endif
}
