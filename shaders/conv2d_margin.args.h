#ifndef VKFLUX_CONV2D_MARGIN_ARGS_H
#define VKFLUX_CONV2D_MARGIN_ARGS_H
struct Conv2dMarginArgs {
  uint units;          // of a pixel: its channels / 4
  uint pixels;         // of Y
  uint rows, columns;  // of an image in Y
  uint filled;         // rows of it that aren't zero
  uint in_h, in_w;
  uint image;     // the first
  int top, left;  // X's pixel at Y's corner
};
#endif
