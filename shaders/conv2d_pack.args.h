#ifndef VKFLUX_CONV2D_PACK_ARGS_H
#define VKFLUX_CONV2D_PACK_ARGS_H
struct Conv2dPackArgs {
  uint n;         // packed texels
  uint rows;      // output channels of the convolution that reads the packed weights
  uint channels;  // its input channels
  uint channels4;
  uint taps;
  uint lanes;    // rows per block
  uint bias_at;  // texel where the bias begins
  uint has_bias;
};
#endif
