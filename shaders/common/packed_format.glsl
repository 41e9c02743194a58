// Packed weights (autograd/packed.h), decoded to f32. Formats: 3 f8_e4m3, 4 f8_e5m2, 5 q8_0, 6 q4_k (weight_format() in
// autograd/ops/packed_weights.h; 0 to 2: weight_format.glsl).
#ifndef VKFLUX_PACKED_FORMAT_GLSL
#define VKFLUX_PACKED_FORMAT_GLSL

// The four bytes of a word in the lower halves of 16 bits each.
uvec2 f8_spread(uint w) { return uvec2((w & 0xffu) | (w & 0xff00u) << 8, (w >> 16 & 0xffu) | (w >> 8 & 0xff0000u)); }

vec4 f8_e4m3(uint w) {
  // An f16 with the same exponent and mantissa fields is smaller by 2^8; NaN's code would be 480.
  const uvec2 s = f8_spread(w), h = (s & 0x00800080u) << 8 | (s & 0x007f007fu) << 7;
  const vec4 x = 256 * vec4(unpackHalf2x16(h.x), unpackHalf2x16(h.y));
  return mix(x, vec4(uintBitsToFloat(0x7fc00000u)), equal(abs(x), vec4(480)));
}
vec4 f8_e5m2(uint w) {
  const uvec2 h = f8_spread(w) << 8;
  return vec4(unpackHalf2x16(h.x), unpackHalf2x16(h.y));
}
vec4 int8_values(uint w) { return vec4(ivec4(w << 24, w << 16, w << 8, w) >> 24); }
vec4 nibble_values(uint w) { return vec4((uvec4(w) >> uvec4(0, 8, 16, 24)) & 15u); }

// Four values of fp8; of q8_0 without the scale.
vec4 byte_values(int format, uint w) { return format == 3 ? f8_e4m3(w) : format == 4 ? f8_e5m2(w) : int8_values(w); }

// The eight 6-bit numbers of a q4_k header's three words as bytes: scales (x, y), then minima (z, w).
uvec4 q4_scales(uint a, uint b, uint c) {
  return uvec4(a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u), b & 0x3f3f3f3fu,
               (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u));
}
// (scale, minimum) of a sub-block: w = x q - y.
vec2 q4_affine(vec2 d, uvec4 scales, uint sub_block) {
  const uvec2 words = sub_block < 4 ? scales.xz : scales.yw;
  return d * vec2(words >> (8 * (sub_block % 4)) & 63u);
}
float q8_scale(uint word, uint block) { return unpackHalf2x16(word)[block % 2]; }
#endif
