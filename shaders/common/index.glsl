// One-dimensional workgroup index of a dispatch made with groups_1d() (autograd/run.h).
#ifndef VKFLUX_INDEX_GLSL
#define VKFLUX_INDEX_GLSL
uint group_1d() { return gl_WorkGroupID.x + gl_WorkGroupID.y * 32768u; }
#endif
