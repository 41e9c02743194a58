// y = f(x), or with BACKWARD: y = g f'(x). p: the parameter of kinds that have one.
//@variant f32
//@variant wide int64 WIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "unary.args.h"
#include "flat.glsl"
#include "nan.glsl"

layout(constant_id = 1) const uint KIND = 0;
layout(constant_id = 2) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer G;
layout(set = 0, binding = 2, std430) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { UnaryArgs a; };

const float kSqrt2OverPi = 0.7978845608028654, kCubic = 0.044715, kInvSqrt2 = 0.7071067811865476;
const float kInvSqrt2Pi = 0.3989422804014327;

vec4 sigmoid(vec4 x) { return 1.0 / (1.0 + exp(min(-x, 80.0))); }
// Some drivers' tanh overflows in its exponentials, and some compute two of them.
vec4 safe_tanh(vec4 x) { return tanh(clamp(x, -15.0, 15.0)); }

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
vec4 erf(vec4 x) {
  vec4 t = 1.0 / (1.0 + 0.3275911 * abs(x));
  vec4 poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - poly * exp(max(-x * x, -80.0)));
}

// (1 + tanh(u)) / 2 = sigmoid(2 u), one exponential
vec4 gelu_gate(vec4 x) { return sigmoid(2.0 * kSqrt2OverPi * (x + kCubic * x * x * x)); }

vec4 forward(vec4 x) {
  switch (KIND) {
    case 0: return x * gelu_gate(x);
    case 1: return 0.5 * x * (1.0 + erf(x * kInvSqrt2));
    case 2: return x * sigmoid(1.702 * x);
    case 3: return x * sigmoid(x);
    case 4: return max(x, 0.0);
    case 5: return sigmoid(x);
    case 6: return safe_tanh(x);
    case 7: return max(x, 0.0) + log(1.0 + exp(-min(abs(x), 80.0)));
    case 8: return mix(exp(max(min(x, 0.0), -80.0)), x + 1.0, greaterThan(x, vec4(0.0)));
    case 9: return exp(x);
    case 10: return log(x);
    case 11: return sqrt(x);
    case 12: return x * x;
    case 13: return abs(x);
    case 14: return mix(abs(x) - 0.5 * a.p, 0.5 * x * x / a.p, lessThan(abs(x), vec4(a.p)));  // smooth L1, beta p
    default: return max(sqrt(x), a.p);                                                       // norm from a square, at least p
  }
}

vec4 derivative(vec4 x) {
  switch (KIND) {
    case 0: {
      vec4 s = gelu_gate(x);
      return s + 2.0 * x * s * (1.0 - s) * kSqrt2OverPi * (1.0 + 3.0 * kCubic * x * x);
    }
    case 1: return 0.5 * (1.0 + erf(x * kInvSqrt2)) + x * kInvSqrt2Pi * exp(max(-0.5 * x * x, -80.0));
    case 2: {
      vec4 s = sigmoid(1.702 * x);
      return s + 1.702 * x * s * (1.0 - s);
    }
    case 3: {
      vec4 s = sigmoid(x);
      return s + x * s * (1.0 - s);
    }
    case 4: return mix(vec4(0.0), vec4(1.0), greaterThan(x, vec4(0.0)));
    case 5: {
      vec4 s = sigmoid(x);
      return s * (1.0 - s);
    }
    case 6: {
      vec4 t = safe_tanh(x);
      return 1.0 - t * t;
    }
    case 7: return sigmoid(x);
    case 8: return mix(exp(max(min(x, 0.0), -80.0)), vec4(1.0), greaterThan(x, vec4(0.0)));
    case 9: return exp(x);
    case 10: return 1.0 / x;
    case 11: return 0.5 / sqrt(x);
    case 12: return 2.0 * x;
    case 13: return sign(x);
    case 14: return clamp(x / a.p, -1.0, 1.0);
    default: return mix(vec4(0.0), 0.5 / sqrt(max(x, 1e-38)), greaterThan(x, vec4(a.p * a.p)));
  }
}

void main() {
  EACH(i, a.n4 / WIDTH) {
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      const int at = int(i * WIDTH + k);
      const vec4 x = texelFetch(X, at);
      v[k] = keep_nan(x, BACKWARD == 0 ? forward(x) : texelFetch(G, at) * derivative(x));
    }
    STORE_WIDE(y, i, v);
  }
}
