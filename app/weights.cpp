#include "app/weights.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <map>

namespace vkflux {
namespace {

const std::map<std::string, DType>& types() {
  static const std::map<std::string, DType> map{{"f32", DType::f32},   {"f16", DType::f16},
                                                {"bf16", DType::bf16}, {"f8", DType::f8_e4m3},
                                                {"q8_0", DType::q8_0}, {"q4_k", DType::q4_k}};
  return map;
}

struct PartRow {
  const char *part, *flag, *help;
};
constexpr std::array kParts{PartRow{"transformer", "--diffusion-model",
                                    "the transformer: this file in place of the one in the model's folder"},
                            PartRow{"text_encoder", "--clip_l", "the CLIP text encoder, likewise"},
                            PartRow{"text_encoder_2", "--t5xxl", "the T5 text encoder, likewise"},
                            PartRow{"vae", "--vae", "the autoencoder, likewise"}};

}  // namespace

void add_part_options(CLI::App& command, PartFiles& files) {
  for (const PartRow& row : kParts) {
    command
        .add_option_function<std::string>(
            row.flag, [&files, row](const std::string& path) { files[row.part] = path; },
            fmt::format("{} (.safetensors or .gguf)", row.help))
        ->type_name("FILE");
  }
}

std::string part_flag(const std::string& part) {
  const auto row =
      std::find_if(kParts.begin(), kParts.end(), [&](const PartRow& r) { return part == r.part; });
  return row == kParts.end() ? part : row->flag;
}

void add_weights_option(CLI::App& command, std::string& value) {
  command
      .add_option(
          "--weights", value,
          "storage of the matrices on the device: f32, f16, bf16, f8 (E4M3), q8_0 or q4_k; the last three "
          "keep what everything passes through in 16 bits")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f8", "q8_0", "q4_k"}));
}

ModelOptions model_options(const std::string& weights, const PartFiles& files) {
  ModelOptions options;
  options.files = files;
  options.weights = types().at(weights);
  options.remark = [](const std::string& text) { spdlog::info("{}", text); };
  return options;
}

}  // namespace vkflux
