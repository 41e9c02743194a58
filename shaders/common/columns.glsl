// Matrices [batch, rows, columns] where an invocation owns units of columns of one batch and walks over a chunk of rows:
// workgroup x = columns, y = chunk of rows, z = batch. No index is ever divided. Specialisation constants 0 and 1 are
// taken. With WIDE (wide.glsl) a workgroup is one SIMD vector and takes all columns of its rows.
#ifndef VKFLUX_COLUMNS_GLSL
#define VKFLUX_COLUMNS_GLSL
layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint VEC4 = 1;
layout(local_size_x_id = 0) in;

#include "units.glsl"
#include "wide.glsl"

uint column_unit() { return gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex; }

// Runs the statement behind it for every group c of WIDTH units of this invocation, of n.
#ifdef WIDE
#define EACH_COLUMN(c, n) for (uint c = gl_LocalInvocationIndex; c < n; c += LOCAL)
#define STORE_GROUP(Y, i, v) STORE_WIDE(Y, i, v)
#else
#define EACH_COLUMN(c, n)      \
  const uint c = column_unit(); \
  if (c < n)
#define STORE_GROUP(Y, i, v) STORE(Y, i, v[0])
#endif
#endif
