// Part of the maps x[image, row, column, channel] with a margin of zeros around them.
//@variant f32
//@variant wide int64 WIDE=1
#version 450
#extension GL_GOOGLE_include_directive : require
#include "conv2d_margin.args.h"
#include "divide.glsl"
#include "flat.glsl"
layout(set = 0, binding = 0) uniform samplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { WIDE_VEC y[]; };
layout(push_constant) uniform Push { Conv2dMarginArgs a; };

void main() {
  const int groups = int(a.units / WIDTH), columns = int(a.columns), rows = int(a.rows);
  const float per_pixel = 1.0 / float(groups), per_column = 1.0 / float(columns), per_row = 1.0 / float(rows);
  EACH(i, a.pixels * a.units / WIDTH) {
    const ivec2 pixel = divide(int(i), groups, per_pixel), row = divide(pixel.x, columns, per_column);
    const ivec2 image = divide(row.x, rows, per_row);
    const int sy = image.y + a.top, sx = row.y + a.left;
    const bool inside = image.y < int(a.filled) && uint(sy) < a.in_h && uint(sx) < a.in_w;
    const int at = inside ? ((((int(a.image) + image.x) * int(a.in_h) + sy) * int(a.in_w) + sx) * groups + pixel.y) * int(WIDTH) : 0;
    vec4 v[WIDTH];
    [[unroll]] for (uint k = 0; k < WIDTH; ++k) {
      v[k] = texelFetch(X, at + int(k));
      v[k] = inside ? v[k] : vec4(0);
    }
    STORE_WIDE(y, i, v);
  }
}
