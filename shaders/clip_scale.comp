#version 450
#extension GL_GOOGLE_include_directive : require
#include "clip_scale.args.h"
layout(local_size_x = 1) in;
layout(set = 0, binding = 0) readonly buffer Norm { float norm[]; };
layout(set = 0, binding = 1) writeonly buffer Scale { float scale[]; };
layout(push_constant) uniform Push { ClipScaleArgs a; };

void main() { scale[0] = min(1.0, a.max_norm / (norm[0] + 1e-6)); }
