// The activations that follow a linear layer, and their derivatives. Codes as in op::Activation:
// 0 none, 1 GELU (tanh form), 2 GELU (erf), 3 quick GELU x sigmoid(1.702 x), 4 SiLU.
#ifndef VKFLUX_LINEAR_ACTIVATION_GLSL
#define VKFLUX_LINEAR_ACTIVATION_GLSL

const float kGeluA = 0.7978845608028654;  // sqrt(2 / pi)
const float kGeluB = 0.044715;

vec4 logistic(vec4 x) { return 1.0 / (1.0 + exp(min(-x, 80.0))); }

// erf to 1.5e-7: Abramowitz and Stegun 7.1.26.
vec4 erf4(vec4 x) {
  const vec4 z = abs(x), t = 1.0 / (1.0 + 0.3275911 * z);
  const vec4 p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - p * exp(max(-z * z, -80.0)));
}

vec4 tanh4(vec4 u) { return 2.0 * logistic(2.0 * u) - 1.0; }

vec4 linear_activation(uint code, vec4 x) {
  if (code == 1) return 0.5 * x * (1.0 + tanh4(kGeluA * (x + kGeluB * x * x * x)));
  if (code == 2) return 0.5 * x * (1.0 + erf4(x * 0.7071067811865476));
  if (code == 3) return x * logistic(1.702 * x);
  if (code == 4) return x * logistic(x);
  return x;
}

vec4 linear_activation_slope(uint code, vec4 x) {
  if (code == 1) {
    const vec4 t = tanh4(kGeluA * (x + kGeluB * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * kGeluA * (1.0 + 3.0 * kGeluB * x * x);
  }
  if (code == 2) {
    return 0.5 * (1.0 + erf4(x * 0.7071067811865476)) +
           x * 0.3989422804014327 * exp(max(-0.5 * x * x, -80.0));
  }
  if (code == 3 || code == 4) {
    const float b = code == 3 ? 1.702 : 1.0;
    const vec4 s = logistic(b * x);
    return s * (1.0 + b * x * (1.0 - s));
  }
  return vec4(1.0);
}
#endif
