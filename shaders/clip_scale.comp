#version 450
#extension GL_GOOGLE_include_directive : require
#include "clip_scale.args.h"
layout(local_size_x = 1) in;
layout(set = 0, binding = 0) readonly buffer Norm { float norm[]; };
layout(set = 0, binding = 1) readonly buffer Loss { float loss[]; };
layout(set = 0, binding = 2) writeonly buffer Scale { float scale[]; };
layout(push_constant) uniform Push { ClipScaleArgs a; };

// By the bits: compilers may assume that floats are finite.
bool special(float x) { return (floatBitsToUint(x) & 0x7f800000u) == 0x7f800000u; }

void main() {
  const bool skip = special(norm[0]) || special(loss[0]);
  scale[0] = skip ? uintBitsToFloat(0x7fc00000u) : min(1.0, a.max_norm / (norm[0] + 1e-6));
}
