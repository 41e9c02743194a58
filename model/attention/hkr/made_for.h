// The transformer that a file of students or of a controller was made for: what such files say of it, and the
// check against another one.
#pragma once

#include <string>

#include "model/backbone.h"
#include "model/io/json.h"

namespace vkflux {

/// Heads and head size of the layers that may be replaced. Error unsupported when they differ.
AttentionLayer replaceable_shape(const BackboneLayout& model);

/// {"family", "head_dim", "heads", "double_blocks", "single_blocks"}: the last are the file format's words
/// for how many layers may not and may be replaced.
io::Json made_for(const BackboneLayout& model);

/// Throws invalid_argument: "<these> belong to another transformer: <what> is <file> in the file and <model>
/// ...".
[[noreturn]] void refuse_model(const char* these, const std::string& what, const std::string& file,
                               const std::string& model);
/// Refuses what made_for() wrote for another transformer; fields that are absent agree.
void check_made_for(const char* these, const io::Json& file, const BackboneLayout& model);

}  // namespace vkflux
