#include "app/weights.h"

#include <spdlog/spdlog.h>

#include <map>

namespace vkflux {
namespace {

constexpr const char* kAsStored = "file";

const std::map<std::string, DType>& types() {
  static const std::map<std::string, DType> map = [] {
    std::map<std::string, DType> all{{"f8", DType::f8_e4m3}};
    for (const DType t :
         {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
          DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k})
      all.emplace(name(t), t);
    return all;
  }();
  return map;
}

}  // namespace

const std::vector<std::string>& weight_type_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& [name, type] : types()) out.push_back(name);
    return out;
  }();
  return names;
}

DType weight_type(const std::string& name) {
  return types().at(name);
}

void add_weights_option(CLI::App& command, std::string& value) {
  std::vector<std::string> names{kAsStored};
  names.insert(names.end(), weight_type_names().begin(), weight_type_names().end());
  command
      .add_option(
          "--weights", value,
          "storage of the matrices on the device: file (as each is stored), f32, f16, bf16, f8 (E4M3), or a "
          "type "
          "of GGUF blocks (q8_0, q4_k, ...); f8 and blocks keep what everything passes through in 16 bits")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
}

ModelOptions model_options(const std::string& weights, const ModelFlags& flags) {
  ModelOptions options;
  options.files = flags.files;
  options.variant = flags.variant;
  options.text_tokens = flags.text_length;
  options.text_states = flags.text_states;
  options.plain_prompts = flags.plain_prompts;
  if (flags.reference_cache != "auto") options.keep_references = flags.reference_cache == "on";
  options.weights = weights == kAsStored ? std::nullopt : std::optional(weight_type(weights));
  options.remark = [](const std::string& text) { spdlog::info("{}", text); };
  return options;
}

}  // namespace vkflux
