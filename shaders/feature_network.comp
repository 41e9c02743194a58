#version 450
// Features of a small network, all of it in one kernel: two or three linear layers with SiLU between them, u = ELU + 1, and
// with NORM u / (|u| + eps). A workgroup carries BR rows through the network: what a layer gives replaces in shared memory
// what it read, so no hidden layer is ever in memory. An invocation holds TM rows x NV groups of four columns that lie
// 4 TX apart. GPUs; CPU implementations run the layers as matrix products.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "feature_network.args.h"
#include "index.glsl"
#include "linear_activation.glsl"
#include "nan.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint TX = 32;      // invocations along the columns
layout(constant_id = 2) const uint TM = 8;       // a multiple of 4
layout(constant_id = 3) const uint NV = 1;       // 4 TX NV columns cover the widest layer
layout(constant_id = 4) const uint WIDE4 = 32;   // vec4 of the widest row that is read
layout(constant_id = 5) const uint LAYERS = 2;
layout(constant_id = 6) const uint NORM = 1;

layout(set = 0, binding = 0) readonly buffer X { vec4 x[]; };
layout(set = 0, binding = 1) readonly buffer W0 { float w0[]; };
layout(set = 0, binding = 2) readonly buffer B0 { vec4 b0[]; };
layout(set = 0, binding = 3) readonly buffer W1 { float w1[]; };
layout(set = 0, binding = 4) readonly buffer B1 { vec4 b1[]; };
layout(set = 0, binding = 5) readonly buffer W2 { float w2[]; };
layout(set = 0, binding = 6) readonly buffer B2 { vec4 b2[]; };
layout(set = 0, binding = 7) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { FeatureNetworkArgs a; };

const uint BR = LOCAL / TX * TM, BK = 16, TM4 = TM / 4, ROW4 = WIDE4 + 1, COLUMNS4 = TX * NV;
shared vec4 rows[BR * ROW4];
shared vec4 tile[BK * COLUMNS4];  // [k][columns]; later TM4 sums of squares per invocation, which need BR <= 64 NV

vec4 acc[TM][NV];

float weight(uint layer, uint i) { return layer == 0 ? w0[i] : layer == 1 ? w1[i] : w2[i]; }
vec4 bias(uint layer, uint i) { return layer == 0 ? b0[i] : layer == 1 ? b1[i] : b2[i]; }

uint tx() { return gl_LocalInvocationIndex % TX; }
uint ty() { return gl_LocalInvocationIndex / TX; }

// acc = rows (weights of the layer)^T, k in and n out
void multiply(uint layer, uint k, uint n) {
  [[unroll]] for (uint i = 0; i < TM; i++) [[unroll]] for (uint g = 0; g < NV; g++) acc[i][g] = vec4(0);
  for (uint k0 = 0; k0 < k; k0 += BK) {
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < BK * n / 4; i += LOCAL) {
      const uint kk = i % BK, column = 4 * (i / BK), at = column * k + k0 + kk;
      tile[kk * COLUMNS4 + column / 4] = vec4(weight(layer, at), weight(layer, at + k), weight(layer, at + 2 * k), weight(layer, at + 3 * k));
    }
    barrier();
    for (uint k4 = 0; k4 < BK / 4; k4++) {
      vec4 w[4][NV];
      [[unroll]] for (uint r = 0; r < 4; r++) [[unroll]] for (uint g = 0; g < NV; g++) w[r][g] = tile[(4 * k4 + r) * COLUMNS4 + g * TX + tx()];
      [[unroll]] for (uint i = 0; i < TM; i++) {
        const vec4 z = rows[(ty() * TM + i) * ROW4 + k0 / 4 + k4];
        [[unroll]] for (uint r = 0; r < 4; r++) [[unroll]] for (uint g = 0; g < NV; g++) acc[i][g] += z[r] * w[r][g];
      }
    }
  }
  barrier();
}

vec4 feature(vec4 v) { return keep_nan(v, mix(exp(clamp(v, -80.0, 0.0)), v + 1.0, greaterThan(v, vec4(0)))); }

// 1 / (|u| + eps) of this invocation's rows.
void row_scales(uint groups4, out float scale[TM]) {
  [[unroll]] for (uint i = 0; i < TM4; i++) {
    vec4 s = vec4(0);
    [[unroll]] for (uint e = 0; e < 4; e++) {
      [[unroll]] for (uint g = 0; g < NV; g++) {
        if (g * TX + tx() < groups4) s[e] += dot(acc[4 * i + e][g], acc[4 * i + e][g]);
      }
    }
    tile[(ty() * TM4 + i) * TX + tx()] = s;
  }
  barrier();
  [[unroll]] for (uint i = 0; i < TM4; i++) {
    vec4 s = vec4(0);
    for (uint t = 0; t < TX; t++) s += tile[(ty() * TM4 + i) * TX + t];
    [[unroll]] for (uint e = 0; e < 4; e++) scale[4 * i + e] = 1.0 / (sqrt(s[e]) + a.eps);
  }
}

void main() {
  const uint row0 = group_1d() * BR;
  if (row0 >= a.rows) return;
  const uint d4 = a.d / 4;
  for (uint i = gl_LocalInvocationIndex; i < BR * d4; i += LOCAL) {
    const uint row = i / d4, c = i % d4;
    rows[row * ROW4 + c] = row0 + row < a.rows ? x[(row0 + row) * d4 + c] : vec4(0);
  }
  [[unroll]] for (uint layer = 0; layer < LAYERS; layer++) {
    const bool last = layer + 1 == LAYERS;
    const uint n = last ? a.features : a.width;
    multiply(layer, layer == 0 ? a.d : a.width, n);
    [[unroll]] for (uint g = 0; g < NV; g++) {
      const uint c = g * TX + tx();
      if (c < n / 4) {
        [[unroll]] for (uint i = 0; i < TM; i++) {
          const vec4 v = acc[i][g] + bias(layer, c);
          acc[i][g] = last ? feature(v) : linear_activation(4, v);
          if (!last) rows[(ty() * TM + i) * ROW4 + c] = acc[i][g];
        }
      }
    }
  }
  float scale[TM];
  [[unroll]] for (uint i = 0; i < TM; i++) scale[i] = 1.0;
  if (NORM != 0) row_scales(a.features / 4, scale);
  [[unroll]] for (uint i = 0; i < TM; i++) {
    const uint row = row0 + ty() * TM + i;
    [[unroll]] for (uint g = 0; g < NV; g++) {
      const uint c = g * TX + tx();
      if (row < a.rows && c < a.features / 4) y[row * (a.features / 4) + c] = acc[i][g] * scale[i];
    }
  }
}
