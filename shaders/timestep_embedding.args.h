#ifndef VKFLUX_TIMESTEP_EMBEDDING_ARGS
#define VKFLUX_TIMESTEP_EMBEDDING_ARGS
struct TimestepEmbeddingArgs {
  uint dim;
  float time_factor;
};
#endif
