// A whole checkpoint folder of a few thousand random weights, for tests of everything above the transformer:
// 1 double and 3 single blocks, one head of 16, 4 pixels per token, 16 x 8 pixels in 3 steps with cfg 2.
#pragma once

#include <string>

#include "model/attention/hkr/students.h"

namespace vkflux::test {

/// Made once for the process and gone with it.
const std::string& tiny_pipeline();
/// Another one, whose configs all follow from names and shapes.
const std::string& plain_pipeline();

/// Layers as FLUX.1 names them.
BackboneLayout student_layout(int64_t heads, int64_t head_dim, int double_blocks, int single_blocks);
BackboneLayout tiny_student_model();
/// Students with random weights for every single block of a transformer.
Students random_students(const BackboneLayout& model, bool ready);

}  // namespace vkflux::test
