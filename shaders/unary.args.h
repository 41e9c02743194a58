#ifndef UNARY_ARGS_H
#define UNARY_ARGS_H
struct UnaryArgs {
  uint n4;
  float p;
};
#endif
