#include "model/flux/tokenizers.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/io/file.h"
#include "model/io/names.h"
#include "model/load.h"
#include "model/model_index.h"
#include "model/text/clip.h"
#include "model/text/tokenizer_places.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using Remark = std::function<void(const std::string&)>;

void say(const Remark& remark, const std::string& text) {
  if (remark) remark(text);
}

std::unique_ptr<Tokenizer> clip_tokenizer(const ModelFiles& files, const Remark& remark) {
  if (const auto own = files.tokenizers.find("tokenizer"); own != files.tokenizers.end()) {
    // Both encoders may share one SentencePiece model.
    const bool unigram = io::is_there(own->second + "/spiece.model") || own->second.ends_with(".model");
    return unigram ? load_t5_tokenizer(own->second) : load_clip_tokenizer(own->second);
  }
  const std::vector<std::string> places = clip_tokenizer_places(files.neighbours);
  if (places.empty())
    throw Error(ErrorCode::io, "there is no vocabulary for CLIP's tokenizer: " + clip_tokenizer_commands());
  say(remark, fmt::format("tokenizer: {} is used", places.front()));
  return load_clip_tokenizer(places.front());
}

std::unique_ptr<Tokenizer> t5_tokenizer(const ModelFiles& files, const Remark& remark) {
  if (const auto own = files.tokenizers.find("tokenizer_2"); own != files.tokenizers.end())
    return load_t5_tokenizer(own->second);
  const std::string& encoder = files.parts.at("text_encoder_2").path;
  if (auto inside = t5_tokenizer_of_tensors(encoder)) {
    say(remark, fmt::format("tokenizer_2: {} has it inside", encoder));
    return inside;
  }
  const std::vector<std::string> places = t5_tokenizer_places(files.neighbours);
  if (places.empty())
    throw Error(ErrorCode::io, "there is no vocabulary for T5's tokenizer: " + t5_tokenizer_commands());
  say(remark, fmt::format("tokenizer_2: {} is used", places.front()));
  return load_t5_tokenizer(places.front());
}

}  // namespace

Flux1Tokenizers load_flux1_tokenizers(const ModelFiles& files, const Remark& remark) {
  return {clip_tokenizer(files, remark), t5_tokenizer(files, remark)};
}

int64_t flux1_text_tokens(const ModelFiles& files, bool guidance, int64_t wanted) {
  int64_t tokens = guidance ? 512 : 256;
  const auto own = files.tokenizers.find("tokenizer_2");
  const std::string config =
      own == files.tokenizers.end() ? std::string() : own->second + "/tokenizer_config.json";
  if (!files.folder.empty() && io::is_there(config)) {
    const auto longest = io::get_or<double>(io::read_json(config), "model_max_length", 512, config);
    if (longest >= 1) tokens = std::min(tokens, static_cast<int64_t>(std::min(longest, 1e6)));
  }
  return text_tokens(read_model_index(files), tokens, wanted);
}

std::vector<PromptTokenizer> flux1_prompt_tokenizers(const ModelFiles& files, const ModelOptions& options) {
  Flux1Tokenizers both = load_flux1_tokenizers(files, options.remark);
  const auto clip_file = io::open_tensors(files.parts.at("text_encoder").path),
             flux_file = io::open_tensors(files.parts.at("transformer").path);
  const ClipTextConfig clip = infer_clip_config(shapes_of(io::NamedTensors(*clip_file, io::clip_names())));
  const bool guidance = io::NamedTensors(*flux_file, io::flux1_names()).has("guidance_in.in_layer.weight");
  const int64_t tokens = flux1_text_tokens(files, guidance, options.text_tokens);
  return {{"tokenizer", std::move(both.clip), static_cast<int>(clip.positions)},
          {"tokenizer_2", std::move(both.t5), static_cast<int>(tokens)}};
}

}  // namespace vkflux
