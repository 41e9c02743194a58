#include "model/text/tokenizer_places.h"

#include <fmt/format.h>

#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/io/hugging_face.h"
#include "model/text/tokenizer_gguf.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kMostBytes = uint64_t{64} << 20;

void add(std::vector<std::string>& out, const std::string& path, const std::vector<const char*>& any_of) {
  for (const char* file : any_of) {
    if (!io::is_there(path + "/" + file)) continue;
    out.push_back(path);
    return;
  }
}

}  // namespace

std::string data_folder() {
  if (const std::string data = environment("XDG_DATA_HOME"); !data.empty()) return data + "/vkflux";
  const std::string home = environment("HOME");
  return home.empty() ? std::string() : home + "/.local/share/vkflux";
}

std::vector<std::string> clip_tokenizer_places(const std::vector<std::string>& roots) {
  const std::vector<const char*> files{"vocab.json", "tokenizer.json"};
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    add(out, root + "/tokenizer", files);
    add(out, root + "/sd1_tokenizer", files);
  }
  if (const std::string own = data_folder() + "/" + kClipVocabulary; io::is_there(own)) out.push_back(own);
  for (const std::string& snapshot : io::hub_snapshots_with("clip-vit-large-patch14"))
    add(out, snapshot, files);
  for (const std::string& snapshot : io::hub_snapshots_with("flux.1"))
    add(out, snapshot + "/tokenizer", files);
  return out;
}

std::vector<std::string> t5_tokenizer_places(const std::vector<std::string>& roots) {
  const std::vector<const char*> files{"spiece.model", "tokenizer.json"};
  std::vector<std::string> out;
  for (const std::string& root : roots) {
    add(out, root + "/tokenizer_2", files);
    add(out, root + "/text_encoders/t5_tokenizer", files);
  }
  if (const std::string own = data_folder() + "/spiece.model"; io::is_there(own)) out.push_back(own);
  for (const std::string& snapshot : io::hub_snapshots_with("t5-v1_1-")) add(out, snapshot, files);
  for (const std::string& snapshot : io::hub_snapshots_with("flux.1"))
    add(out, snapshot + "/tokenizer_2", files);
  return out;
}

std::vector<std::string> chat_tokenizer_places(PromptKind kind, const std::vector<std::string>& roots) {
  const std::vector<const char*> files{"tokenizer.json", "vocab.json", "tekken.json"};
  const bool mistral = kind == PromptKind::mistral;
  std::vector<std::string> out;
  for (const std::string& root : roots) add(out, root + "/tokenizer", files);
  add(out, data_folder() + (mistral ? "/mistral" : "/qwen3"), files);
  for (const std::string& snapshot : io::hub_snapshots_with(mistral ? "flux.2-dev" : "flux.2-klein"))
    add(out, snapshot + "/tokenizer", files);
  for (const std::string& snapshot : io::hub_snapshots_with(mistral ? "mistral-small-3" : "qwen3-")) {
    // Qwen's later ones of such names have another template.
    const bool plain =
        snapshot.find("Qwen3-4B/") != std::string::npos || snapshot.find("Qwen3-8B/") != std::string::npos;
    if (mistral || plain) add(out, snapshot, files);
  }
  return out;
}

std::string chat_tokenizer_commands(PromptKind kind) {
  const bool mistral = kind == PromptKind::mistral;
  return fmt::format(
      "hf download {}, or --tokenizer FOLDER_OR_FILE (tokenizer.json, vocab.json with "
      "merges.txt, "
      "or tekken.json), or a copy of it in {}",
      mistral ? "mistralai/Mistral-Small-3.2-24B-Instruct-2506 tekken.json"
              : "Qwen/Qwen3-4B tokenizer.json tokenizer_config.json",
      data_folder() + (mistral ? "/mistral" : "/qwen3"));
}

std::string clip_tokenizer_commands() {
  return fmt::format("scripts/get-clip-vocabulary (to {}), or {}, or --tokenizer FOLDER_OR_FILE",
                     data_folder(), "hf download openai/clip-vit-large-patch14 vocab.json merges.txt");
}

std::string t5_tokenizer_commands() {
  return fmt::format(
      "hf download google/t5-v1_1-xxl spiece.model, or --tokenizer_2 FOLDER_OR_FILE "
      "(spiece.model or tokenizer.json), or a copy of it as {}/spiece.model",
      data_folder());
}

std::unique_ptr<Tokenizer> t5_tokenizer_of_tensors(const std::string& path) {
  const std::unique_ptr<io::TensorSource> file = io::open_tensors(path);
  if (const auto* gguf = dynamic_cast<const io::GgufFile*>(file.get())) {
    if (has_gguf_unigram(gguf->values())) return t5_tokenizer_from_gguf(gguf->values(), file->path());
  }
  for (const auto& [name, info] : file->tensors()) {
    const bool model = name == "spiece_model" || name.ends_with(".spiece_model");
    if (!model || (info.dtype != io::FileDType::u8 && info.dtype != io::FileDType::i8)) continue;
    if (info.bytes() > kMostBytes)
      throw Error(ErrorCode::format, fmt::format("{}: the tokenizer {} has {} bytes, {} are the limit",
                                                 file->path(), io::shown(name), info.bytes(), kMostBytes));
    return t5_tokenizer_from_bytes(file->read_bytes(name), file->path() + ": " + io::shown(name));
  }
  return nullptr;
}

}  // namespace vkflux
