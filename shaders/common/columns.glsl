// Matrices [batch, rows, columns] where an invocation owns one unit of columns of one batch and walks over a chunk
// of rows: workgroup x = columns, y = chunk of rows, z = batch. No index is ever divided. Specialisation
// constants 0 and 1 are taken.
#ifndef VKFLUX_COLUMNS_GLSL
#define VKFLUX_COLUMNS_GLSL
layout(constant_id = 0) const uint LOCAL = 64;
layout(constant_id = 1) const uint VEC4 = 1;
layout(local_size_x_id = 0) in;

#include "units.glsl"

uint column_unit() { return gl_WorkGroupID.x * LOCAL + gl_LocalInvocationIndex; }
#endif
