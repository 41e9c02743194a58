// Integer division by a divisor that many invocations share, through its float reciprocal: a vector integer division is
// split into scalar ones on CPU implementations.
#ifndef VKFLUX_DIVIDE_GLSL
#define VKFLUX_DIVIDE_GLSL
// (p / d, p % d) for 0 <= p < 2^31; inverse = 1 / float(d). The first quotient is off by at most p 2^-22 / d + 1, the second
// step and the correction make it exact.
ivec2 divide(int p, int d, float inverse) {
  int q = int(float(p) * inverse);
  int r = p - q * d;
  const int q2 = int(float(r) * inverse);
  q += q2;
  r -= q2 * d;
  if (r < 0) {
    q -= 1;
    r += d;
  }
  if (r >= d) {
    q += 1;
    r -= d;
  }
  return ivec2(q, r);
}
#endif
