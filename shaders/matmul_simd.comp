#version 450
// C = act(alpha op(A) op(B) + bias) for Vulkan on a CPU, where a subgroup is one SIMD vector.
//   nt: A[M, K], B[N, K]   nn: A[M, K], B[K, N]   tn: A[K, M], B[K, N]
// One workgroup = one subgroup = one tile of C. A lane owns groups of four consecutive columns. Operands come as 128-bit
// texels, which such devices load several times faster than storage buffers; A's values reach all lanes by shuffles with a
// constant lane. No shared memory, no barriers. Edges: addresses are clamped, stores are predicated.
//   panel: both operands as matmul_panel.comp writes them. A fetch then reads consecutive memory, where rows at strides
// of some KiB fall on the same cache sets, and two texels of K share an update of the accumulators (in a loop each one is
// loaded, blended by the mask of active lanes and stored).
//@variant nt FORM=0
//@variant nt_scalar FORM=0 SCALAR_C=1
//@variant nt_packed FORM=0 PACKED=1
//@variant nt_packed_scalar FORM=0 PACKED=1 SCALAR_C=1
//@variant nn FORM=1
//@variant tn FORM=2
//@variant panel FORM=3
//@variant panel_scalar FORM=3 SCALAR_C=1
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_EXT_control_flow_attributes : require
#include "linear_activation.glsl"
#include "matmul.args.h"
#include "weight_format.glsl"

#ifdef SCALAR_C  // rows of C that don't start at multiples of 16 bytes
#define C_TYPE float
#else
#define C_TYPE vec4
#endif

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const int SG = 8;        // subgroup size
layout(constant_id = 1) const int MA = 4;        // texels of A per step
layout(constant_id = 2) const int NV = 1;        // column groups (vec4) per lane; even when B is 16-bit and not nt
layout(constant_id = 3) const int B_FORMAT = 0;  // shaders/common/weight_format.glsl
layout(constant_id = 4) const int FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 5) const uint ACT = 0;
layout(constant_id = 6) const int TAIL = 0;  // nn: K is no multiple of 4

layout(set = 0, binding = 0) uniform samplerBuffer A;
layout(set = 0, binding = 1) uniform usamplerBuffer B;
layout(set = 0, binding = 2) uniform samplerBuffer Bias;
layout(set = 0, binding = 3) uniform samplerBuffer C0;
layout(set = 0, binding = 4) writeonly buffer C { C_TYPE c[]; };
layout(set = 0, binding = 5) writeonly buffer Pre { C_TYPE pre[]; };
layout(push_constant) uniform Push { MatmulArgs p; };

const int ROWS = FORM == 2 ? 4 * MA : SG * MA;
const int PER = B_FORMAT == 0 ? 1 : 2;  // vec4 groups in a texel of B
const int G = FORM == 0 ? 1 : PER;      // adjacent column groups of a lane
vec4 acc[ROWS][NV];

uint column_group(int j, uint lane) { return gl_WorkGroupID.y * uint(SG * NV) + uint(j / G * SG * G) + lane * uint(G) + uint(j % G); }

#ifdef PACKED
#include "matmul_packed.glsl"
#elif FORM == 0
void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  int ia[MA], ib[4 * NV];
  [[unroll]] for (int m = 0; m < MA; m++) {
    const uint row = min(gl_WorkGroupID.x * uint(ROWS) + uint(m * SG) + lane, p.m - 1);
    ia[m] = int((a0 + row * p.lda) / 4);
  }
  [[unroll]] for (int j = 0; j < 4 * NV; j++) {
    const uint row = min(4 * column_group(j / 4, lane) + uint(j % 4), p.n - 1);
    ib[j] = int((b0 + row * p.ldb) / uint(4 * PER));
  }
  const int t_end = int(k_end) / (4 * PER);
  for (int t = int(k_begin) / (4 * PER); t < t_end; t++) {
    uvec4 raw[4 * NV];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) raw[j] = texelFetch(B, ib[j] + t);
    [[unroll]] for (int g = 0; g < PER; g++) {
      vec4 b[4 * NV];
      [[unroll]] for (int j = 0; j < 4 * NV; j++) b[j] = decode_weights(B_FORMAT, raw[j], g);
      [[unroll]] for (int m = 0; m < MA; m++) {
        const vec4 a = texelFetch(A, ia[m] + t * PER + g);
        [[unroll]] for (int i = 0; i < SG; i++) {
          const vec4 s = vec4(subgroupShuffle(a.x, i), subgroupShuffle(a.y, i), subgroupShuffle(a.z, i), subgroupShuffle(a.w, i));
          [[unroll]] for (int j = 0; j < NV; j++) {
            [[unroll]] for (int r = 0; r < 4; r++) {
              const vec4 w = b[4 * j + r];
              acc[m * SG + i][j][r] += s.x * w.x + s.y * w.y + s.z * w.z + s.w * w.w;
            }
          }
        }
      }
    }
  }
}
#elif FORM == 3
// p.lda, p.ldb: from one block of SG rows to the next. The rows of B's blocks 4 j .. 4 j + 3 are columns of group j.
void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  int ia[MA], ib[4 * NV];
  [[unroll]] for (int m = 0; m < MA; m++) ia[m] = int((a0 + (gl_WorkGroupID.x * uint(MA) + uint(m)) * p.lda) / 4 + lane);
  [[unroll]] for (int j = 0; j < 4 * NV; j++) ib[j] = int((b0 + (gl_WorkGroupID.y * uint(4 * NV) + uint(j)) * p.ldb) / 4 + lane);
  const int t_end = int(k_end) / 4;
  for (int t = int(k_begin) / 4; t < t_end; t += 2) {
    vec4 b[4 * NV][2];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      [[unroll]] for (int u = 0; u < 2; u++) b[j][u] = uintBitsToFloat(texelFetch(B, ib[j] + (t + u) * SG));
    }
    [[unroll]] for (int m = 0; m < MA; m++) {
      const vec4 a = texelFetch(A, ia[m] + t * SG), a1 = texelFetch(A, ia[m] + (t + 1) * SG);
      [[unroll]] for (int i = 0; i < SG; i++) {
        const vec4 s = vec4(subgroupShuffle(a.x, i), subgroupShuffle(a.y, i), subgroupShuffle(a.z, i), subgroupShuffle(a.w, i));
        const vec4 s1 = vec4(subgroupShuffle(a1.x, i), subgroupShuffle(a1.y, i), subgroupShuffle(a1.z, i), subgroupShuffle(a1.w, i));
        [[unroll]] for (int j = 0; j < 4 * NV; j++) {
          const vec4 w = b[j][0], w1 = b[j][1];
          acc[m * SG + i][j / 4][j % 4] += (s.x * w.x + s.y * w.y + s.z * w.z + s.w * w.w) +
                                           (s1.x * w1.x + s1.y * w1.y + s1.z * w1.z + s1.w * w1.w);
        }
      }
    }
  }
}
#else
int ib[NV];  // B's texel in row 0

void locate_columns(uint lane, uint b0) {
  [[unroll]] for (int j = 0; j < NV; j++) {
    ib[j] = int(b0 / uint(4 * PER) + min(column_group(j, lane), (p.n - 1) / 4) / uint(PER));
  }
}

void fetch_rows(uint k, uint k_last, out vec4 b[4][NV]) {
  [[unroll]] for (int q = 0; q < 4; q++) {
    const int row = int(min(k + uint(q), k_last) * (p.ldb / uint(4 * PER)));
    [[unroll]] for (int j = 0; j < NV; j += G) {
      const uvec4 raw = texelFetch(B, ib[j] + row);
      [[unroll]] for (int g = 0; g < G; g++) b[q][j + g] = decode_weights(B_FORMAT, raw, g);
    }
  }
}

void add_row(int i, vec4 s, vec4 b[4][NV]) {
  [[unroll]] for (int j = 0; j < NV; j++) acc[i][j] += s.x * b[0][j] + s.y * b[1][j] + s.z * b[2][j] + s.w * b[3][j];
}

#if FORM == 1
void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  int ia[MA];
  [[unroll]] for (int m = 0; m < MA; m++) {
    ia[m] = int((a0 + min(gl_WorkGroupID.x * uint(ROWS) + uint(m * SG) + lane, p.m - 1) * p.lda) / 4);
  }
  locate_columns(lane, b0);
  for (uint k = k_begin; k < k_end; k += 4) {
    vec4 b[4][NV];
    fetch_rows(k, TAIL != 0 ? k_end - 1 : ~0u, b);
    [[unroll]] for (int m = 0; m < MA; m++) {
      vec4 a = texelFetch(A, ia[m] + int(k / 4));
      if (TAIL != 0) a = mix(vec4(0), a, lessThan(uvec4(k) + uvec4(0, 1, 2, 3), uvec4(k_end)));
      [[unroll]] for (int i = 0; i < SG; i++) {
        add_row(m * SG + i, vec4(subgroupShuffle(a.x, i), subgroupShuffle(a.y, i), subgroupShuffle(a.z, i), subgroupShuffle(a.w, i)), b);
      }
    }
  }
}
#else
void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  int ia[MA];
  [[unroll]] for (int m = 0; m < MA; m++) ia[m] = int(a0 / 4 + min(gl_WorkGroupID.x * uint(MA) + uint(m), (p.m - 1) / 4));
  locate_columns(lane, b0);
  for (uint k = k_begin; k < k_end; k += uint(SG)) {
    vec4 a[MA];  // lane = contraction index, components = rows of C
    const int row = int(min(k + lane, k_end - 1) * (p.lda / 4));
    [[unroll]] for (int m = 0; m < MA; m++) {
      a[m] = texelFetch(A, ia[m] + row);
      a[m] = k + lane < k_end ? a[m] : vec4(0);
    }
    [[unroll]] for (int h = 0; h < SG; h += 4) {
      vec4 b[4][NV];
      fetch_rows(k + uint(h), k_end - 1, b);
      [[unroll]] for (int m = 0; m < MA; m++) {
        [[unroll]] for (int r = 0; r < 4; r++) {
          const float x = a[m][r];
          add_row(m * 4 + r, vec4(subgroupShuffle(x, h), subgroupShuffle(x, h + 1), subgroupShuffle(x, h + 2), subgroupShuffle(x, h + 3)), b);
        }
      }
    }
  }
}
#endif
#endif

// Elements [at, at + min(left, 4)) of C.
void store(uint at, uint left, vec4 v) {
#ifdef SCALAR_C
  if ((FLAGS & 2) != 0) {
    [[unroll]] for (uint r = 0; r < 4; r++) {
      if (r < left) v[r] += texelFetch(C0, int((at + r) / 4))[(at + r) % 4];
    }
  }
  const vec4 y = linear_activation(ACT, v);
  [[unroll]] for (uint r = 0; r < 4; r++) {
    if (r >= left) continue;
    if ((FLAGS & 4) != 0) pre[at + r] = v[r];
    c[at + r] = y[r];
  }
#else
  if ((FLAGS & 2) != 0) v += texelFetch(C0, int(at / 4));
  if ((FLAGS & 4) != 0) pre[at / 4] = v;
  c[at / 4] = linear_activation(ACT, v);
#endif
}

void main() {
  const uint lane = gl_LocalInvocationIndex;
  const uint batch = gl_WorkGroupID.z / p.splits, k_begin = gl_WorkGroupID.z % p.splits * p.k_split;
  [[unroll]] for (int i = 0; i < ROWS; i++) [[unroll]] for (int j = 0; j < NV; j++) acc[i][j] = vec4(0);
  multiply(lane, p.a_offset + batch * p.a_batch, p.b_offset + batch * p.b_batch, k_begin, min(k_begin + p.k_split, p.k));

  const uint c0 = p.c_offset + gl_WorkGroupID.z * p.c_batch;
  [[unroll]] for (int j = 0; j < NV; j++) {
    const uint column = 4 * column_group(j, lane);
    vec4 bias = vec4(0);
    if ((FLAGS & 1) != 0) bias = texelFetch(Bias, int(min(column, p.n - 1) / 4));
    [[unroll]] for (int i = 0; i < ROWS; i++) {
      const uint row = gl_WorkGroupID.x * uint(ROWS) + uint(i);
      if (row < p.m && column < p.n) store(c0 + row * p.ldc + column, p.n - column, p.alpha * acc[i][j] + bias);
    }
  }
}
