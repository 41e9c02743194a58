#ifndef VKFLUX_MATMUL_ARGS_H
#define VKFLUX_MATMUL_ARGS_H
// Strides and offsets are in elements. Workgroup z = batch * splits + split; C advances by c_batch per z.
struct MatmulArgs {
  uint m, n, k;
  uint lda, ldb, ldc;
  uint a_offset, b_offset, c_offset;
  uint a_batch, b_batch, c_batch;
  uint splits, k_split;
  float alpha;
};
struct MatmulReduceArgs {
  uint n4, splits, stride4;
};
#endif
