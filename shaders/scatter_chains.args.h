#ifndef VKFLUX_SCATTER_CHAINS_ARGS
#define VKFLUX_SCATTER_CHAINS_ARGS
struct ScatterChainsArgs {
  uint count, table_rows;
};
#endif
