// The two branches' rows as the conditioner leaves them: (1 + scale) x + bias with C = (kernel scale, kernel bias,
// landmark scale, landmark bias). The includer has row.glsl's constants; 3 is taken here.
#ifndef VKFLUX_HKR_BLEND_GLSL
#define VKFLUX_HKR_BLEND_GLSL
#include "row.glsl"
layout(constant_id = 3) const uint CONDITIONED = 0;
layout(set = 0, binding = 0) uniform samplerBuffer Kernel;
layout(set = 0, binding = 1) uniform samplerBuffer Land;
layout(set = 0, binding = 2) uniform samplerBuffer C;

vec4 conditioner() { return CONDITIONED != 0 ? texelFetch(C, 0) : vec4(0); }
vec4 kernel_at(uint i, vec4 c) { return unit_mask(LOAD(Kernel, i) * (1 + c.x) + c.y); }
vec4 land_at(uint i, vec4 c) { return unit_mask(LOAD(Land, i) * (1 + c.z) + c.w); }
#endif
