// f32 <-> f16 or bf16, eight elements an invocation. In integers, so that every device rounds to nearest even and keeps
// subnormals; f16 saturates to its largest finite value (as to_f16 in autograd/half.h), which is counted.
//   down  f32 to 16 bit
//   up    16 bit to f32
//@variant down DOWN=1
//@variant up
#version 450
#extension GL_GOOGLE_include_directive : require
#include "cast.args.h"
#include "half.glsl"
#include "index.glsl"

layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint BF16 = 0;
layout(local_size_x_id = 0) in;
layout(set = 0, binding = 0) uniform usamplerBuffer X;
layout(set = 0, binding = 1) writeonly buffer Y { uvec4 y[]; };
#ifdef DOWN
layout(set = 0, binding = 2) buffer Saturated { uint all_saturated[]; };
#endif
layout(push_constant) uniform Push { CastArgs a; };

uint from_f16(uint h) {
  const uint sign = (h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
  if (e == 31u) return sign | 0x7f800000u | m << 13;
  if (e != 0u) return sign | (e + 112u) << 23 | m << 13;
  if (m == 0u) return sign;
  const uint top = uint(findMSB(m));
  return sign | (top + 103u) << 23 | (m << (23u - top) & 0x7fffffu);
}

uint down(uint u) { return BF16 != 0u ? to_bf16(u) : to_f16(u); }
uint up(uint h) { return BF16 != 0u ? h << 16 : from_f16(h); }

uvec2 pack(uvec4 v) { return uvec2(down(v.x) | down(v.y) << 16, down(v.z) | down(v.w) << 16); }
uvec4 unpack(uvec2 v) { return uvec4(up(v.x & 0xffffu), up(v.x >> 16), up(v.y & 0xffffu), up(v.y >> 16)); }

void main() {
  const uint at = group_1d() * LOCAL + gl_LocalInvocationID.x;
  if (8u * at >= a.count) return;
  // Of the f32 side, the second vec4 may lie behind the end.
  const bool both = 8u * at + 4u < a.count;
#ifdef DOWN
  const uvec4 head = texelFetch(X, int(2u * at)), tail = both ? texelFetch(X, int(2u * at + 1u)) : uvec4(0);
  y[at] = uvec4(pack(head), pack(tail));
  if (BF16 == 0u) {
    const uvec4 place = 8u * at + uvec4(0, 1, 2, 3);
    const uvec4 beyond = uvec4(lessThan(place, uvec4(a.count))) * saturates(head) +
                         uvec4(lessThan(place + 4u, uvec4(a.count))) * saturates(tail);
    const uint n = beyond.x + beyond.y + beyond.z + beyond.w;
    if (n != 0u) atomicAdd(all_saturated[0], n);
  }
#else
  const uvec4 v = texelFetch(X, int(at));
  y[2u * at] = unpack(v.xy);
  if (both) y[2u * at + 1u] = unpack(v.zw);
#endif
}
