#include "model/attention/hkr/made_for.h"

#include <fmt/format.h>

#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux {

AttentionLayer replaceable_shape(const BackboneLayout& model) {
  AttentionLayer shape;
  for (const int i : model.replaceable()) {
    const AttentionLayer& layer = model.layers[static_cast<size_t>(i)];
    if (shape.heads != 0 && (shape.heads != layer.heads || shape.head_dim != layer.head_dim)) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{} has {} heads of {}, others have {} of {}: students are of one shape",
                              layer.name, layer.heads, layer.head_dim, shape.heads, shape.head_dim));
    }
    shape = layer;
  }
  return shape;
}

io::Json made_for(const BackboneLayout& model) {
  const AttentionLayer shape = replaceable_shape(model);
  const size_t replaceable = model.replaceable().size();
  return {{"family", model.family},
          {"head_dim", shape.head_dim},
          {"heads", shape.heads},
          {"double_blocks", model.layers.size() - replaceable},
          {"single_blocks", replaceable}};
}

void refuse_model(const char* these, const std::string& what, const std::string& file,
                  const std::string& model) {
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("{} belong to another transformer: {} is {} in the file and {} in the model; take those "
                  "that were made for this model, or make new ones",
                  these, what, file, model));
}

void check_made_for(const char* these, const io::Json& file, const BackboneLayout& model) {
  if (!file.is_object()) return;
  const io::Json want = made_for(model);
  for (const auto& [key, value] : want.items()) {
    const auto it = file.find(key);
    if (it == file.end()) continue;
    const bool typed = value.is_string() ? it->is_string() : it->is_number_integer();
    if (!typed) {
      throw Error(ErrorCode::format,
                  fmt::format("\"model\" of the file: \"{}\" is {}", key, io::json_text(*it)));
    }
    if (*it != value) refuse_model(these, key, io::json_text(*it), io::json_text(value));
  }
}

}  // namespace vkflux
