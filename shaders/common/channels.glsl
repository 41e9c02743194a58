// Channels-last images by units of VEC channels (4, or 1 when their number isn't a multiple of four).
#ifndef VKFLUX_CHANNELS_GLSL
#define VKFLUX_CHANNELS_GLSL
#if VEC == 4
#define UNIT vec4
#define LOAD(buffer_name, i) texelFetch(buffer_name, int(i))
#else
#define UNIT float
// One element of a vec4 texel.
#define LOAD(buffer_name, i) texelFetch(buffer_name, int((i) / 4u))[(i) % 4u]
#endif
#endif
