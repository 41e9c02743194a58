// Sine and cosine with our own range reduction, so that large angles don't depend on a driver's.
#ifndef VKFLUX_SINCOS_GLSL
#define VKFLUX_SINCOS_GLSL
// |x| up to about 1e4: x is reduced by the nearest multiple of pi/2, subtracted in three parts of which the first two
// have so few bits that their products with the quadrant number are exact; then Taylor series on [-pi/4, pi/4].
void sincos(float x, out float s, out float c) {
  const float quadrant = round(x * 0.6366197723675814);
  precise float r = x - quadrant * 1.5703125;
  r = r - quadrant * 4.837512969970703e-4;
  r = r - quadrant * 7.549789954891e-8;
  const float z = r * r;
  const float sr = r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362880.0))));
  const float cr = 1.0 - 0.5 * z + z * z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40320.0)));
  const int q = int(quadrant);
  const bool swapped = (q & 1) != 0;
  s = (q & 2) != 0 ? -(swapped ? cr : sr) : (swapped ? cr : sr);
  c = ((q + 1) & 2) != 0 ? -(swapped ? sr : cr) : (swapped ? sr : cr);
}
#endif
