#ifndef VKFLUX_QUANTIZE_ARGS_H
#define VKFLUX_QUANTIZE_ARGS_H
struct QuantizeArgs {
  uint rows, columns;
  uint row_texels;  // of a packed row
};
struct DequantizeArgs {
  uint columns, row_texels;
  uint items;        // invocations that have work
  uint first_texel;  // of the first row
};
#endif
