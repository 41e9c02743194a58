#include "model/flux2/tokenizer.h"

#include <fmt/format.h>

#include "model/text/tokenizer_places.h"
#include "vk/error.h"

namespace vkflux {

PromptKind prompt_kind(const DecoderConfig& config) {
  return config.qk_norm ? PromptKind::qwen3 : PromptKind::mistral;
}

std::shared_ptr<const ByteBpe> load_flux2_tokenizer(const ModelFiles& files, PromptKind kind,
                                                    const std::function<void(const std::string&)>& remark) {
  const auto say = [&](const std::string& text) {
    if (remark) remark("tokenizer: " + text);
  };
  if (const auto own = files.tokenizers.find("tokenizer"); own != files.tokenizers.end())
    return load_byte_bpe(own->second);
  const std::string& encoder = files.parts.at("text_encoder").path;
  if (auto inside = byte_bpe_of_tensors(encoder)) {
    say(fmt::format("{} has it inside", encoder));
    return inside;
  }
  const std::vector<std::string> places = chat_tokenizer_places(kind, files.neighbours);
  if (places.empty())
    throw Error(ErrorCode::io, fmt::format("there is no vocabulary for the tokenizer of {}: {}",
                                           kind == PromptKind::qwen3 ? "Qwen3" : "Mistral Small",
                                           chat_tokenizer_commands(kind)));
  say(fmt::format("{} is used", places.front()));
  return load_byte_bpe(places.front());
}

}  // namespace vkflux
