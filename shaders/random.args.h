#ifndef RANDOM_ARGS_H
#define RANDOM_ARGS_H
struct RandomArgs {
  uint first4, n4, seed_low, seed_high, stream_low, stream_high;
};
#endif
