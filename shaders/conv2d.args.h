// Arguments of conv2d_simd.comp and conv2d_gpu.comp.
#ifndef VKFLUX_CONV2D_ARGS_H
#define VKFLUX_CONV2D_ARGS_H
struct Conv2dArgs {
  uint pixels;  // of the result: batch * out_h * out_w
  uint in_h, in_w, in_c4;
  uint out_h, out_w, out_c;
  uint kernel_h, kernel_w;
  int stride, pad_top, pad_left;
  uint bias_at;  // texel of the packed weights where the bias begins
};
#endif
