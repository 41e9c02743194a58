#version 450
// y = x * (scale + ADD_ONE) + shift + residual; x, residual [batch, rows, cols], scale, shift [batch, cols].
#extension GL_GOOGLE_include_directive : require
#include "columns.glsl"
#include "scale_columns.args.h"
layout(constant_id = 2) const uint ADD_ONE = 0;
layout(constant_id = 3) const uint HAS_SHIFT = 0;
layout(constant_id = 4) const uint HAS_RESIDUAL = 0;
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) uniform samplerBuffer Scale;
layout(set = 0, binding = 2) uniform samplerBuffer Shift;
layout(set = 0, binding = 3) uniform samplerBuffer Residual;
layout(set = 0, binding = 4) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { ScaleColumnsArgs a; };

void main() {
  const uint units = UNITS(a.cols), c = column_unit(), batch = gl_WorkGroupID.z;
  if (c >= units) return;
  const vec4 scale = LOAD(Scale, UNITS(batch * a.scale_stride) + c) + float(ADD_ONE);
  const vec4 shift = HAS_SHIFT != 0 ? LOAD(Shift, UNITS(batch * a.shift_stride) + c) : vec4(0);
  const uint first = gl_WorkGroupID.y * a.rows_per_group, last = min(first + a.rows_per_group, a.rows);
  for (uint r = first; r < last; ++r) {
    const uint i = (batch * a.rows + r) * units + c;
    vec4 v = LOAD(X, i) * scale;
    if (HAS_SHIFT != 0) v += shift;
    if (HAS_RESIDUAL != 0) v += LOAD(Residual, i);
    STORE(y, i, v);
  }
}
