#include "app/weights.h"

#include <spdlog/spdlog.h>

#include <map>

namespace vkflux {
namespace {

const std::map<std::string, DType>& types() {
  static const std::map<std::string, DType> map{{"f32", DType::f32},   {"f16", DType::f16},
                                                {"bf16", DType::bf16}, {"f8", DType::f8_e4m3},
                                                {"q8_0", DType::q8_0}, {"q4_k", DType::q4_k}};
  return map;
}

}  // namespace

void add_weights_option(CLI::App& command, std::string& value) {
  command
      .add_option(
          "--weights", value,
          "storage of the matrices on the device: f32, f16, bf16, f8 (E4M3), q8_0 or q4_k; the last three "
          "keep what everything passes through in 16 bits")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f8", "q8_0", "q4_k"}));
}

ModelOptions model_options(const std::string& weights, const ModelFlags& flags) {
  ModelOptions options;
  options.files = flags.files;
  options.variant = flags.variant;
  options.text_tokens = flags.text_length;
  options.weights = types().at(weights);
  options.remark = [](const std::string& text) { spdlog::info("{}", text); };
  return options;
}

}  // namespace vkflux
