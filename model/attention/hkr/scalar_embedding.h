// Sinusoids of a raw scalar, for sigma, guidance and picture sizes.
#pragma once

#include <cstdint>
#include <vector>

namespace vkflux {

/// Numbers in an embedding that was asked to have `requested`: at least 2, even.
int64_t scalar_embedding_width(int64_t requested);
/// exp(-ln(10000) i / max(1, h - 1)) for i < h = width / 2, rounded to f32.
std::vector<float> scalar_embedding_frequencies(int64_t requested);
/// sin(x f_0) .. sin(x f_h-1), cos(x f_0) .. cos(x f_h-1).
std::vector<float> scalar_embedding(double x, int64_t requested);

}  // namespace vkflux
