// The tile products that flash attention and its backward are made of. A workgroup owns BR rows (queries, or keys in the
// dk/dv pass) and walks over the other side in blocks of BC columns; an invocation holds TM consecutive rows x TN columns
// that lie TX apart of the block's scores, and TM rows x NV vec4 that lie TX apart of each result. Both kinds of product
// read vec4 from shared memory: neighbouring invocations find theirs an odd number of vec4 apart (or side by side), those of
// one row read the same address. No step depends on the subgroup size.
//
// The including shader declares the push constants `a` (flash_attention.args.h), the binding Mask and
// vec4 fetch(uint tensor, uint at) over its inputs.
#ifndef VKFLUX_FLASH_ATTENTION_GLSL
#define VKFLUX_FLASH_ATTENTION_GLSL
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 128;
layout(constant_id = 1) const uint TX = 16;   // invocations that share a row
layout(constant_id = 2) const uint TM = 8;    // rows of an invocation; a multiple of 4
layout(constant_id = 3) const uint TN = 4;    // columns of an invocation
layout(constant_id = 4) const uint NV = 2;    // vec4 of a result row that an invocation owns: NV TX >= d4
layout(constant_id = 5) const uint BD4 = 4;   // vec4 of the head dimension in one step of a score product; even
layout(constant_id = 6) const uint FLAGS = 0; // 1 key mask, 2 causal, 4 dk and 8 dv wanted

const uint TM4 = TM / 4, BR = LOCAL / TX * TM, BC = TX * TN;
const uint ROW4 = BD4 + 1;           // row of an operand of a score product
const uint WEIGHT_ROW4 = BR / 4 + 1; // column of weights
const uint WEIGHTS4 = TX * WEIGHT_ROW4;
const uint SCORE_STEP4 = (BR + BC) * ROW4, RESULT_STEP4 = WEIGHTS4 + TX * NV * TX;
shared vec4 tile[SCORE_STEP4 > RESULT_STEP4 ? SCORE_STEP4 : RESULT_STEP4];

#include "flash_attention_mask.glsl"

uint tx() { return gl_LocalInvocationIndex % TX; }
uint ty() { return gl_LocalInvocationIndex / TX; }

// Rows [first, first + count) of a [batch_heads, n, d4] tensor; rows from count on read as zeros.
struct Rows {
  uint first, count;
};

void load_operand(uint tensor, Rows rows, uint count, uint c0, uint destination) {
  for (uint i = gl_LocalInvocationIndex; i < count * BD4; i += LOCAL) {
    const uint row = i / BD4, c = i % BD4;
    const bool inside = row < rows.count && c0 + c < a.d4;
    tile[destination + row * ROW4 + c] = inside ? fetch(tensor, (rows.first + row) * a.d4 + c0 + c) : vec4(0);
  }
}

// s[i][j] = row i of x . row j of y
void score_product(uint x, Rows x_rows, uint y, Rows y_rows, out float s[TM][TN]) {
  [[unroll]] for (uint i = 0; i < TM; i++) [[unroll]] for (uint j = 0; j < TN; j++) s[i][j] = 0.0;
  const uint x_at = ty() * TM * ROW4, y_at = BR * ROW4 + tx() * ROW4;
  for (uint c0 = 0; c0 < a.d4; c0 += BD4) {
    load_operand(x, x_rows, BR, c0, 0);
    load_operand(y, y_rows, BC, c0, BR * ROW4);
    barrier();
    for (uint c = 0; c < BD4; c++) {
      vec4 w[TN];
      [[unroll]] for (uint j = 0; j < TN; j++) w[j] = tile[y_at + j * TX * ROW4 + c];
      [[unroll]] for (uint i = 0; i < TM; i++) {
        const vec4 z = tile[x_at + i * ROW4 + c];
        [[unroll]] for (uint r = 0; r < 4; r++) {
          [[unroll]] for (uint j = 0; j < TN; j++) s[i][j] += z[r] * w[j][r];
        }
      }
    }
    barrier();
  }
}

// r[i] += sum over columns j of w[i][j] (row j of y), TX columns at a time. The columns of w go round, which leaves them as
// they were: always taking the first keeps w in registers in a loop that compilers don't unroll.
void result_product(inout float w[TM][TN], uint y, Rows y_rows, inout vec4 r[TM][NV]) {
  for (uint j = 0; j < TN; j++) {
    if (j * TX < y_rows.count) {
      [[unroll]] for (uint i = 0; i < TM4; i++) {
        tile[tx() * WEIGHT_ROW4 + ty() * TM4 + i] = vec4(w[4 * i][0], w[4 * i + 1][0], w[4 * i + 2][0], w[4 * i + 3][0]);
      }
      for (uint i = gl_LocalInvocationIndex; i < TX * NV * TX; i += LOCAL) {
        const uint row = j * TX + i / (NV * TX), c = i % (NV * TX);
        const bool inside = row < y_rows.count && c < a.d4;
        tile[WEIGHTS4 + i] = inside ? fetch(y, (y_rows.first + row) * a.d4 + c) : vec4(0);
      }
      barrier();
      for (uint k = 0; k < TX; k++) {
        vec4 v[NV];
        [[unroll]] for (uint n = 0; n < NV; n++) v[n] = tile[WEIGHTS4 + (k * NV + n) * TX + tx()];
        [[unroll]] for (uint i = 0; i < TM4; i++) {
          const vec4 z = tile[k * WEIGHT_ROW4 + ty() * TM4 + i];
          [[unroll]] for (uint e = 0; e < 4; e++) {
            [[unroll]] for (uint n = 0; n < NV; n++) r[4 * i + e][n] += z[e] * v[n];
          }
        }
      }
      barrier();
    }
    [[unroll]] for (uint i = 0; i < TM; i++) {
      const float used = w[i][0];
      [[unroll]] for (uint n = 1; n < TN; n++) w[i][n - 1] = w[i][n];
      w[i][TN - 1] = used;
    }
  }
}

// The values of all invocations of a row, in a fixed order.
void share_with_row(vec4 x[TM4]) {
  [[unroll]] for (uint i = 0; i < TM4; i++) tile[tx() * WEIGHT_ROW4 + ty() * TM4 + i] = x[i];
  barrier();
}
vec4 shared_by(uint x, uint i) { return tile[x * WEIGHT_ROW4 + ty() * TM4 + i]; }
#endif
