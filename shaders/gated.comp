#version 450
// y = f(a) * b over rows, f = silu or gelu_tanh; a and b may be halves of one buffer. BACKWARD: da and db, laid
// out like a and b.
#extension GL_GOOGLE_include_directive : require
#include "columns.glsl"
#include "gated.args.h"
layout(constant_id = 2) const uint GELU = 0;
layout(constant_id = 3) const uint BACKWARD = 0;
layout(set = 0, binding = 0) uniform samplerBuffer A;
layout(set = 0, binding = 1) uniform samplerBuffer B;
layout(set = 0, binding = 2) uniform samplerBuffer DY;
layout(set = 0, binding = 3) writeonly buffer Y { vec4 y[]; };  // y, or da
layout(set = 0, binding = 4) writeonly buffer DB { vec4 db[]; };
layout(push_constant) uniform Push { GatedArgs a; };

// f(x) and f'(x).
void activation(vec4 x, out vec4 f, out vec4 df) {
  if (GELU != 0) {
    const float k = 0.7978845608028654, c = 0.044715;  // k = sqrt(2 / pi)
    const vec4 t = tanh(clamp(k * (x + c * x * x * x), -15.0, 15.0));
    f = 0.5 * x * (1 + t);
    df = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * c * x * x);
  } else {
    const vec4 s = 1 / (1 + exp(-clamp(x, -80.0, 80.0)));
    f = x * s;
    df = s * (1 + x * (1 - s));
  }
}

void main() {
  const uint units = UNITS(a.cols), stride = UNITS(a.stride), b_offset = UNITS(a.b_offset), c = column_unit();
  if (c >= units) return;
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.rows);
  for (uint r = first; r < last; ++r) {
    const uint i = r * stride + c, j = i + b_offset, o = r * units + c;
    vec4 f, df;
    activation(LOAD(A, i), f, df);
    const vec4 b = LOAD(B, j);
    if (BACKWARD != 0) {
      const vec4 dy = LOAD(DY, o), da = dy * b * df, gb = dy * f;
      STORE(y, i, da);
      STORE(db, j, gb);
    } else {
      STORE(y, o, f * b);
    }
  }
}
