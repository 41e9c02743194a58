#ifndef VKFLUX_GROUP_NORM_GLSL
#define VKFLUX_GROUP_NORM_GLSL
UNIT gn_sigmoid(UNIT x) { return 1.0 / (1.0 + exp(-clamp(x, UNIT(-80.0), UNIT(80.0)))); }
UNIT silu(UNIT x) { return x * gn_sigmoid(x); }
UNIT silu_derivative(UNIT x) {
  UNIT s = gn_sigmoid(x);
  return s + x * s * (1.0 - s);
}
#endif
