// Arguments of conv2d_weight_simd.comp, conv2d_weight_gpu.comp and conv2d_weight_reduce.comp.
#ifndef VKFLUX_CONV2D_WEIGHT_ARGS_H
#define VKFLUX_CONV2D_WEIGHT_ARGS_H
struct Conv2dWeightArgs {
  uint batch, in_h, in_w, in_c4;
  uint pixels, out_h, out_w, out_c4;  // of the output's gradient
  uint kernel_h, kernel_w;
  int stride, pad_top, pad_left;
  uint columns4;  // taps * in_c4
  uint split;     // pixels per workgroup
};
struct Conv2dWeightReduceArgs {
  uint n;  // out_c * (columns4 + 1)
  uint out_c, rows, channels, channels4, taps;
  uint splits;
  uint has_bias;
};
#endif
