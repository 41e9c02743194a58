#ifndef VKFLUX_RESIZE_BILINEAR_ARGS_H
#define VKFLUX_RESIZE_BILINEAR_ARGS_H
struct ResizeArgs {
  uint count;  // units of what is written
  uint units;  // per pixel
  uint in_h, in_w, out_h, out_w;
};
#endif
