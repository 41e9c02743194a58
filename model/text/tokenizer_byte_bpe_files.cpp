// Reads byte-level BPE tokenizers from tekken.json, from GGUF metadata, and from what a path names.
#include <fmt/format.h>

#include <filesystem>
#include <set>

#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/text/base64.h"
#include "model/text/tokenizer_byte_bpe.h"
#include "model/text/tokenizer_json.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using namespace tokenizer_json;
using Form = ByteBpeModel::Form;

constexpr uint64_t kMostBytes = uint64_t{64} << 20;

std::string read_if_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? io::read_file(path.string(), kMostBytes) : std::string();
}

}  // namespace

ByteBpeModel parse_tekken(std::string_view text, const std::string& origin) {
  const json root = object_of(text, origin);
  const json &config = member(root, "config"), &vocab = member(root, "vocab");
  if (!config.is_object() || !vocab.is_array())
    throw Error(ErrorCode::format,
                fmt::format("{}: no tekken tokenizer: \"config\" or \"vocab\" is missing", origin));
  const auto number = [&](const char* key) {
    const json& value = member(config, key);
    if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() > 10'000'000)
      throw Error(ErrorCode::format,
                  fmt::format("{}: \"{}\" is {}", origin, key, io::shown(io::json_text(value))));
    return value.get<int64_t>();
  };
  const int64_t specials = number("default_num_special_tokens"), size = number("default_vocab_size");
  ByteBpeModel out;
  out.ranked = out.whole_first = true;
  const std::string pattern = text_of(config, "pattern");
  out.steps = {{false, pattern.empty() ? std::string(kTekkenPattern) : pattern}};
  for (const json& entry : vocab) {
    const int64_t rank = id_of(member(entry, "rank"), origin);
    const auto bytes = decode_base64(text_of(entry, "token_bytes"));
    if (!bytes || bytes->empty() || rank < 0)
      throw Error(ErrorCode::format,
                  fmt::format("{}: the token of rank {} has no bytes in base64", origin, rank));
    if (rank >= size - specials) continue;
    std::string token;
    for (const char c : *bytes) token += byte_alphabet()[static_cast<uint8_t>(c)];
    out.tokens.emplace_back(std::move(token), rank + specials);
  }
  std::set<int64_t> named;
  const auto special = [&](const std::string& token, int64_t id) {
    if (id < 0 || id >= specials)
      throw Error(ErrorCode::format, fmt::format("{}: the special token \"{}\" has rank {} of {}", origin,
                                                 io::shown(token), id, specials));
    if (named.insert(id).second) add(out, {token, id});
  };
  if (member(root, "special_tokens").is_array()) {
    for (const json& token : root["special_tokens"])
      special(text_of(token, "token_str"), id_of(member(token, "rank"), origin));
  } else {
    // What the files don't list that are older than the list.
    constexpr const char* kNames[] = {"<unk>",
                                      "<s>",
                                      "</s>",
                                      "[INST]",
                                      "[/INST]",
                                      "[AVAILABLE_TOOLS]",
                                      "[/AVAILABLE_TOOLS]",
                                      "[TOOL_RESULTS]",
                                      "[/TOOL_RESULTS]",
                                      "[TOOL_CALLS]",
                                      "[IMG]",
                                      "<pad>",
                                      "[IMG_BREAK]",
                                      "[IMG_END]",
                                      "[PREFIX]",
                                      "[MIDDLE]",
                                      "[SUFFIX]",
                                      "[SYSTEM_PROMPT]",
                                      "[/SYSTEM_PROMPT]",
                                      "[TOOL_CONTENT]"};
    int64_t id = 0;
    for (const char* name : kNames) {
      if (id < specials) special(name, id++);
    }
  }
  for (int64_t id = 0; id < specials; ++id) special(fmt::format("<SPECIAL_{}>", id), id);
  out.start = "<s>", out.end = "</s>", out.pad = "<pad>";
  return out;
}

bool has_gguf_byte_bpe(const io::Json& values) {
  const auto found = values.find("tokenizer.ggml.model");
  return found != values.end() && found->is_string() && found->get_ref<const std::string&>() == "gpt2";
}

// Without the chat template: what it says is for talking to the model.
ByteBpeModel parse_gguf_byte_bpe(const io::Json& values) {
  const std::string prefix = "tokenizer.ggml.";
  const auto list = [&](const char* key, bool needed) -> const io::Json& {
    static const io::Json none = io::Json::array();
    const auto found = values.find(prefix + key);
    if (found == values.end() && !needed) return none;
    if (found == values.end() || !found->is_array())
      throw Error(ErrorCode::format, fmt::format("{}{}: it is missing, or no array", prefix, key));
    return *found;
  };
  const io::Json &tokens = list("tokens", true), &types = list("token_type", true),
                 &merges = list("merges", false);
  if (types.size() != tokens.size())
    throw Error(ErrorCode::format, fmt::format("{}tokens: {} tokens and {} types don't go together", prefix,
                                               tokens.size(), types.size()));
  ByteBpeModel out;
  const auto text = [&](size_t i) {
    if (!tokens[i].is_string())
      throw Error(ErrorCode::format, fmt::format("{}tokens: {} is no text", prefix, i));
    return tokens[i].get<std::string>();
  };
  enum Type : uint32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUser = 4, kUnused = 5 };
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!io::holds<uint32_t>(types[i]))
      throw Error(ErrorCode::format,
                  fmt::format("{}token_type: {} is {}", prefix, i, io::shown(io::json_text(types[i]))));
    const auto type = types[i].get<uint32_t>();
    if (type == kUnused) continue;
    if (type == kUnknown || type == kControl || type == kUser) {
      add(out, {text(i), static_cast<int64_t>(i)});
    } else {
      out.tokens.emplace_back(text(i), static_cast<int64_t>(i));
    }
  }
  size_t number = 0;
  for (const io::Json& m : merges) {
    ++number;
    if (!m.is_string())
      throw Error(ErrorCode::format, fmt::format("{}merges: {} is no text", prefix, number));
    take_merge(m.get_ref<const std::string&>(), number, prefix + "merges", out);
  }
  out.ranked = merges.empty();
  const auto pre = io::get_or<std::string>(values, prefix + "pre", "", "GGUF metadata");
  if (pre == "qwen2") {
    out.forms = {Form::nfc};
    out.steps = {{false, std::string(kQwenPattern)}};
    out.pad = out.end = "<|endoftext|>";
  } else if (pre == "tekken") {
    out.whole_first = true;
    out.steps = {{false, std::string(kTekkenPattern)}};
    out.start = "<s>", out.end = "</s>", out.pad = "<pad>";
  } else {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}pre is \"{}\"; known are qwen2 and tekken", prefix, io::shown(pre)));
  }
  for (const auto& [key, role] :
       {std::pair{"bos_token_id", &out.start}, {"eos_token_id", &out.end}, {"padding_token_id", &out.pad}}) {
    const auto id = io::get_or<int64_t>(values, prefix + key, -1, "GGUF metadata");
    if (id < 0) continue;
    if (id >= static_cast<int64_t>(tokens.size()))
      throw Error(ErrorCode::format, fmt::format("{}{} is {} of {} tokens", prefix, key, id, tokens.size()));
    *role = text(static_cast<size_t>(id));
  }
  return out;
}

std::shared_ptr<const ByteBpe> load_byte_bpe(const std::string& path) {
  const ErrorContext context(path);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw Error(ErrorCode::io, "no such file or folder");
  const bool is_folder = fs::is_directory(path, ignored);
  const fs::path folder = is_folder ? fs::path(path) : fs::path(path).parent_path();
  const std::string name = is_folder ? "" : fs::path(path).filename().string();
  const std::string config = read_if_there(folder / "tokenizer_config.json");
  const auto there = [&](const char* file) {
    return is_folder ? fs::exists(folder / file, ignored) : name == file;
  };
  ByteBpeModel model;
  if (there("tokenizer.json") || (!is_folder && name.find("tekken") == std::string::npos &&
                                  name != "vocab.json" && name != "merges.txt")) {
    const fs::path file = is_folder ? folder / "tokenizer.json" : fs::path(path);
    model = parse_byte_bpe_json(io::read_file(file.string(), kMostBytes), config);
  } else if (there("vocab.json") || there("merges.txt")) {
    model = parse_byte_bpe_files(io::read_file((folder / "vocab.json").string(), kMostBytes),
                                 io::read_file((folder / "merges.txt").string(), kMostBytes),
                                 read_if_there(folder / "added_tokens.json"), config);
  } else if (there("tekken.json") || !is_folder) {
    const fs::path file = is_folder ? folder / "tekken.json" : fs::path(path);
    model = parse_tekken(io::read_file(file.string(), kMostBytes), file.filename().string());
  } else {
    throw Error(ErrorCode::io,
                "there is no tokenizer.json, no vocab.json with merges.txt and no tekken.json");
  }
  // A file of its own says it before the config does.
  if (const std::string chat = read_if_there(folder / "chat_template.jinja"); !chat.empty()) {
    model.chat_template = chat;
  } else if (const std::string inside = read_if_there(folder / "chat_template.json"); !inside.empty()) {
    const std::string text = text_of(object_of(inside, "chat_template.json"), "chat_template");
    if (!text.empty()) model.chat_template = text;
  }
  return std::make_shared<const ByteBpe>(std::move(model));
}

std::shared_ptr<const ByteBpe> byte_bpe_of_tensors(const std::string& path) {
  const std::unique_ptr<io::TensorSource> file = io::open_tensors(path);
  const ErrorContext context(file->path());
  if (const auto* gguf = dynamic_cast<const io::GgufFile*>(file.get())) {
    if (has_gguf_byte_bpe(gguf->values()))
      return std::make_shared<const ByteBpe>(parse_gguf_byte_bpe(gguf->values()));
  }
  for (const auto& [name, info] : file->tensors()) {
    if (name != "tekken_model" && !name.ends_with(".tekken_model")) continue;
    if (info.dtype != io::FileDType::u8 && info.dtype != io::FileDType::i8) continue;
    if (info.bytes() > kMostBytes)
      throw Error(ErrorCode::format, fmt::format("the tokenizer {} has {} bytes, {} are the limit",
                                                 io::shown(name), info.bytes(), kMostBytes));
    const std::vector<std::byte> bytes = file->read_bytes(name);
    return std::make_shared<const ByteBpe>(
        parse_tekken({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, io::shown(name)));
  }
  return nullptr;
}

}  // namespace vkflux
