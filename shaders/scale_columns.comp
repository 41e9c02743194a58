//@variant f32
//@variant wide int64 WIDE=1
#version 450
// y = x * (scale + ADD_ONE) + shift + residual; x, residual [batch, rows, cols], scale, shift [batch, cols].
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "columns.glsl"
#include "scale_columns.args.h"
layout(constant_id = 2) const uint ADD_ONE = 0;
layout(constant_id = 3) const uint HAS_SHIFT = 0;
layout(constant_id = 4) const uint HAS_RESIDUAL = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer Scale;
layout(set = 0, binding = 2) uniform samplerBuffer Shift;
layout(set = 0, binding = 3) uniform samplerBuffer Residual;
layout(set = 0, binding = 4) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { ScaleColumnsArgs a; };

void main() {
  const uint groups = UNITS(a.cols) / WIDTH, batch = gl_WorkGroupID.z;
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.rows);
  EACH_COLUMN(c, groups) {
    vec4 scale[WIDTH], shift[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      scale[k] = LOAD(Scale, UNITS(batch * a.scale_stride) + c * WIDTH + k) + float(ADD_ONE);
      shift[k] = HAS_SHIFT != 0 ? LOAD(Shift, UNITS(batch * a.shift_stride) + c * WIDTH + k) : vec4(0);
    }
    for (uint r = first; r < last; ++r) {
      const uint i = (batch * a.rows + r) * groups + c;
      vec4 v[WIDTH];
      [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
        v[k] = LOAD(X, i * WIDTH + k) * scale[k];
        if (HAS_SHIFT != 0) v[k] += shift[k];
        if (HAS_RESIDUAL != 0) v[k] += LOAD(Residual, i * WIDTH + k);
      }
      STORE_GROUP(y, i, v);
    }
  }
}
