#include "model/flux/tokenizers.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "model/io/names.h"
#include "model/load.h"
#include "model/text/clip.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxTextTokens = 4096;

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

Flux1Tokenizers load_flux1_tokenizers(const std::string& folder) {
  const std::string first = folder + "/tokenizer";
  return {exists(first + "/spiece.model") ? load_t5_tokenizer(first) : load_clip_tokenizer(first),
          load_t5_tokenizer(folder + "/tokenizer_2")};
}

int64_t flux1_text_tokens(const std::string& folder, bool guidance) {
  const std::string origin = "model_index.json";
  const io::Json index = io::read_json(folder + "/" + origin);
  const auto ours = index.is_object() ? index.find("vkflux") : index.end();
  int64_t tokens = guidance ? 512 : 256;
  if (ours != index.end() && ours->is_object() && ours->contains("txt_tokens")) {
    tokens = io::get<int64_t>(*ours, "txt_tokens", origin);
  } else if (const std::string config = folder + "/tokenizer_2/tokenizer_config.json"; exists(config)) {
    const auto longest = io::get_or<double>(io::read_json(config), "model_max_length", 512, config);
    if (longest >= 1) tokens = std::min(tokens, static_cast<int64_t>(std::min(longest, 1e6)));
  }
  if (tokens < 1 || tokens > kMaxTextTokens)
    throw Error(ErrorCode::format,
                fmt::format("{} text tokens: 1 to {} are possible", tokens, kMaxTextTokens));
  return tokens;
}

std::vector<PromptTokenizer> flux1_prompt_tokenizers(const std::string& folder) {
  Flux1Tokenizers both = load_flux1_tokenizers(folder);
  const auto clip_file = io::open_tensors(folder + "/text_encoder"),
             flux_file = io::open_tensors(folder + "/transformer");
  const ClipTextConfig clip = infer_clip_config(shapes_of(io::NamedTensors(*clip_file, io::clip_names())));
  const bool guidance = io::NamedTensors(*flux_file, io::flux1_names()).has("guidance_in.in_layer.weight");
  return {{"tokenizer", std::move(both.clip), static_cast<int>(clip.positions)},
          {"tokenizer_2", std::move(both.t5), static_cast<int>(flux1_text_tokens(folder, guidance))}};
}

}  // namespace vkflux
