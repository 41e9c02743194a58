#ifndef VKFLUX_MATMUL_PANEL_ARGS_H
#define VKFLUX_MATMUL_PANEL_ARGS_H
// X's strides and offset are in elements, Y's in texels. k4: texels of K in a block of Y, a multiple of 2.
struct MatmulPanelArgs {
  uint rows, k, ld, offset, batch;
  uint k4, blocks, y_batch4;
};
#endif
