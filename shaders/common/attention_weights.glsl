// Scores and probabilities of dropped keys.
#ifndef VKFLUX_ATTENTION_WEIGHTS_GLSL
#define VKFLUX_ATTENTION_WEIGHTS_GLSL

#include "nan.glsl"

const float kDropped = -3.0e38;      // the score of a key that is masked
const float kDroppedBelow = -1.0e38;

// exp(x - m) for kept keys, 0 for the others; bounded below, since values near the denormal range are slow on CPUs.
vec4 weights(vec4 x, float m) {
  return keep_nan(x, mix(exp(max(x - m, -80.0)), vec4(0), lessThan(x, vec4(kDroppedBelow))));
}
#endif
