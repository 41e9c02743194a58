// A unit is the four consecutive numbers that one invocation handles at a time, or a single number (in .x, the
// rest 0) where rows are not a multiple of four long. The includer declares the specialisation constant VEC4.
#ifndef VKFLUX_UNITS_GLSL
#define VKFLUX_UNITS_GLSL
#define UNITS(count) (VEC4 != 0 ? (count) / 4 : (count))
// Unit i of the texel buffer T; element i.
#define LOAD(T, i) \
  (VEC4 != 0 ? texelFetch(T, int(i)) : vec4(texelFetch(T, int((i) >> 2))[(i) & 3u], 0, 0, 0))
#define LOAD1(T, i) (texelFetch(T, int((i) >> 2))[(i) & 3u])
// Unit i of the array of vec4 Y.
#define STORE(Y, i, v)                 \
  if (VEC4 != 0)                       \
    Y[i] = v;                          \
  else                                 \
    Y[(i) >> 2][(i) & 3u] = (v).x
// Zeroes what isn't part of the unit. Not a ?: of two constants: some compilers fold that per component.
vec4 unit_mask(vec4 x) {
  if (VEC4 == 0) x.yzw = vec3(0);
  return x;
}
#endif
