// Four random numbers an invocation: Philox 4x32-10 with counter (block, 0, stream) and key seed.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "random.args.h"
#include "index.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 0) const uint LOCAL = 256;
layout(constant_id = 1) const uint NORMAL = 0;
layout(set = 0, binding = 0, std430) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { RandomArgs a; };

uvec4 philox(uvec4 c, uvec2 key) {
  for (int round = 0; round < 10; ++round) {
    uint high0, low0, high1, low1;
    umulExtended(0xD2511F53u, c.x, high0, low0);
    umulExtended(0xCD9E8D57u, c.z, high1, low1);
    c = uvec4(high1 ^ c.y ^ key.x, low1, high0 ^ c.w ^ key.y, low0);
    key += uvec2(0x9E3779B9u, 0xBB67AE85u);
  }
  return c;
}

vec2 box_muller(uint u, uint v) {
  float radius = sqrt(-2.0 * log(float(u >> 8) * 5.9604644775390625e-8 + 2.98023223876953125e-8));
  float angle = 6.283185307179586 * (float(v >> 8) * 5.9604644775390625e-8);
  return radius * vec2(cos(angle), sin(angle));
}

void main() {
  uint i = group_1d() * LOCAL + gl_LocalInvocationIndex;
  if (i >= a.n4) return;
  uvec4 r = philox(uvec4(a.first4 + i, 0u, a.stream_low, a.stream_high), uvec2(a.seed_low, a.seed_high));
  if (NORMAL == 0) {
    y[i] = vec4(r >> 8) * 5.9604644775390625e-8;
  } else {
    y[i] = vec4(box_muller(r.x, r.y), box_muller(r.z, r.w));
  }
}
