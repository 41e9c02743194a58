//@variant f32
//@variant wide int64 WIDE=1
#version 450
// y = f(a) * b over rows, f = silu or gelu_tanh; a and b may be halves of one buffer. BACKWARD: da and db, laid
// out like a and b.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "columns.glsl"
#include "gated.args.h"
layout(constant_id = 2) const uint GELU = 0;
layout(constant_id = 3) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer A;
layout(set = 0, binding = 1) uniform samplerBuffer B;
layout(set = 0, binding = 2) uniform samplerBuffer DY;
layout(set = 0, binding = 3) writeonly buffer Y { WIDE_VEC y[]; };  // y, or da
layout(set = 0, binding = 4) writeonly buffer DB { WIDE_VEC db[]; };
layout(push_constant) uniform Push { GatedArgs a; };

vec4 logistic(vec4 x) { return 1 / (1 + exp(min(-x, 80.0))); }

// f(x) and f'(x).
void activation(vec4 x, out vec4 f, out vec4 df) {
  if (GELU != 0) {
    const float k = 0.7978845608028654, c = 0.044715;  // k = sqrt(2 / pi)
    const vec4 s = logistic(2 * k * (x + c * x * x * x));  // (1 + tanh) / 2
    f = x * s;
    df = s + 2 * x * s * (1 - s) * k * (1 + 3 * c * x * x);
  } else {
    const vec4 s = logistic(x);
    f = x * s;
    df = s * (1 + x * (1 - s));
  }
}

void main() {
  const uint groups = UNITS(a.cols) / WIDTH, stride = UNITS(a.stride) / WIDTH, b_offset = UNITS(a.b_offset) / WIDTH;
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.rows);
  EACH_COLUMN(c, groups) {
    for (uint r = first; r < last; ++r) {
      const uint i = r * stride + c, j = i + b_offset, o = r * groups + c;
      vec4 v[WIDTH], w[WIDTH];
      [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
        vec4 f, df;
        activation(LOAD(A, i * WIDTH + k), f, df);
        const vec4 b = LOAD(B, j * WIDTH + k);
        if (BACKWARD != 0) {
          const vec4 dy = LOAD(DY, o * WIDTH + k);
          v[k] = dy * b * df;
          w[k] = dy * f;
        } else {
          v[k] = f * b;
        }
      }
      if (BACKWARD != 0) {
        STORE_GROUP(y, i, v);
        STORE_GROUP(db, j, w);
      } else {
        STORE_GROUP(y, o, v);
      }
    }
  }
}
