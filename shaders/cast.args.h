#ifndef VKFLUX_CAST_ARGS_H
#define VKFLUX_CAST_ARGS_H
struct CastArgs {
  uint count;  // elements
};
#endif
