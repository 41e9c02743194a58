// Head vectors in units of UNIT (4, or 2 where head_dim is not a multiple of 4) numbers, and rotation of the pairs
// (2i, 2i+1) by (cos, sin). The includer declares the specialisation constant UNIT. Values of a unit of two are
// in .xy, the rest is 0.
#ifndef VKFLUX_ROTATE_GLSL
#define VKFLUX_ROTATE_GLSL
#define LOAD_UNIT(T, i)             \
  (UNIT == 4 ? texelFetch(T, int(i)) \
             : vec4(((i) & 1u) != 0 ? texelFetch(T, int((i) >> 1)).zw : texelFetch(T, int((i) >> 1)).xy, 0, 0))
#define STORE_UNIT(Y, i, v)              \
  if (UNIT == 4) {                       \
    Y[i] = v;                            \
  } else {                               \
    Y[(i) >> 1][2 * ((i) & 1u)] = (v).x; \
    Y[(i) >> 1][2 * ((i) & 1u) + 1] = (v).y; \
  }

// r: cos, sin of both pairs; sign -1 rotates back.
vec4 rotate(vec4 x, vec4 r, float sign) {
  r.yw *= sign;
  return vec4(r.x * x.x - r.y * x.y, r.y * x.x + r.x * x.y, r.z * x.z - r.w * x.w, r.w * x.z + r.z * x.w);
}
#endif
