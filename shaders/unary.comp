// y = f(x), or with BACKWARD: y = g f'(x), four elements an invocation. p: the parameter of kinds that have one.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "unary.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint KIND = 0;
layout(constant_id = 2) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer G;
layout(set = 0, binding = 2, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { UnaryArgs a; };

const float kSqrt2OverPi = 0.7978845608028654, kCubic = 0.044715, kInvSqrt2 = 0.7071067811865476;
const float kInvSqrt2Pi = 0.3989422804014327;

// Some drivers' tanh overflows in its exponentials.
vec4 safe_tanh(vec4 x) { return tanh(clamp(x, -15.0, 15.0)); }
vec4 sigmoid(vec4 x) { return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0))); }

// Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
vec4 erf(vec4 x) {
  vec4 t = 1.0 / (1.0 + 0.3275911 * abs(x));
  vec4 poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - poly * exp(max(-x * x, -80.0)));
}

vec4 gelu_inner(vec4 x) { return kSqrt2OverPi * (x + kCubic * x * x * x); }

vec4 forward(vec4 x) {
  switch (KIND) {
    case 0: return 0.5 * x * (1.0 + safe_tanh(gelu_inner(x)));
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
      vec4 t = safe_tanh(gelu_inner(x));
      return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * kSqrt2OverPi * (1.0 + 3.0 * kCubic * x * x);
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
  uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.n4) return;
  vec4 x = texelFetch(X, int(i));
  if (BACKWARD == 0) {
    y[i] = forward(x);
  } else {
    y[i] = texelFetch(G, int(i)) * derivative(x);
  }
}
