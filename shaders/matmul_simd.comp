#version 450
// C = act(alpha op(A) op(B) + bias) for Vulkan on a CPU, where a subgroup is one SIMD vector.
//   nt: A[M, K], B[N, K]   nn: A[M, K], B[K, N]   tn: A[K, M], B[K, N]
// One workgroup = one subgroup = one tile of C. A lane owns groups of four consecutive columns. Operands come as 128-bit
// texels, which such devices load several times faster than storage buffers; A's values reach all lanes by shuffles with a
// constant lane. No shared memory, no barriers. Edges: addresses are clamped, stores are predicated.
//   panel: both operands as matmul_panel.comp writes them (panel_product.glsl).
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
layout(constant_id = 3) const uint B_FORMAT = 0;  // weight_format.glsl; packed: packed_format.glsl
layout(constant_id = 4) const int FLAGS = 0;     // 1 bias, 2 accumulate, 4 also write the pre-activation
layout(constant_id = 5) const uint ACT = 0;
layout(constant_id = 6) const int TAIL = 0;  // nn: K is no multiple of 4
layout(constant_id = 7) const int KU = 1;    // nt: texels of B's rows per step

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
  for (int t = int(k_begin) / (4 * PER); t < t_end; t += KU) {
    vec4 b[4 * NV][KU * PER];
    [[unroll]] for (int j = 0; j < 4 * NV; j++) {
      [[unroll]] for (int u = 0; u < KU; u++) {
        const uvec4 raw = texelFetch(B, ib[j] + t + u);
        [[unroll]] for (int g = 0; g < PER; g++) b[j][u * PER + g] = decode_weights(B_FORMAT, raw, g);
      }
    }
    [[unroll]] for (int m = 0; m < MA; m++) {
      vec4 a[KU * PER];
      [[unroll]] for (int u = 0; u < KU * PER; u++) a[u] = texelFetch(A, ia[m] + t * PER + u);
      [[unroll]] for (int i = 0; i < SG; i++) {
        vec4 s[KU * PER];
        [[unroll]] for (int u = 0; u < KU * PER; u++) {
          s[u] = vec4(subgroupShuffle(a[u].x, i), subgroupShuffle(a[u].y, i), subgroupShuffle(a[u].z, i), subgroupShuffle(a[u].w, i));
        }
        [[unroll]] for (int j = 0; j < 4 * NV; j++) {
          float sum = 0;
          [[unroll]] for (int u = 0; u < KU * PER; u++) {
            const vec4 w = b[j][u];
            sum += s[u].x * w.x + s[u].y * w.y + s[u].z * w.z + s[u].w * w.w;
          }
          acc[m * SG + i][j / 4][j % 4] += sum;
        }
      }
    }
  }
}
#elif FORM == 3
vec4 panel_a(int m, int texel) { return texelFetch(A, texel); }
vec4 panel_b(int texel) { return uintBitsToFloat(texelFetch(B, texel)); }
#include "panel_product.glsl"

// p.lda, p.ldb: from one block of SG rows to the next.
void multiply(uint lane, uint a0, uint b0, uint k_begin, uint k_end) {
  const uint skip = k_begin * uint(SG);
  panel_product(int((a0 + gl_WorkGroupID.x * uint(MA) * p.lda + skip) / 4 + lane), int(p.lda / 4),
                int((b0 + gl_WorkGroupID.y * uint(4 * NV) * p.ldb + skip) / 4 + lane), int(p.ldb / 4), int(k_end - k_begin) / 4);
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
