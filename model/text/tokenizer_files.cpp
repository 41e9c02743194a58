// Reads the files of a CLIP tokenizer and chooses among the files of a folder.
#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "model/io/file.h"
#include "model/io/gzip.h"
#include "model/io/json.h"
#include "model/text/tokenizer_clip.h"
#include "model/text/tokenizer_t5.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kMaxTokenizerBytes = 64ull << 20;

int64_t id_of(const json& value, const std::string& origin) {
  if (!value.is_number_integer()) {
    throw Error(ErrorCode::format, fmt::format("{}: a token's id is {}, expected an integer", origin,
                                               io::json_text(value).substr(0, 40)));
  }
  return value.get<int64_t>();
}

/// A special token is written as a string or as an object with "content".
std::string token_text(const json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  if (found == object.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return {};
}

void take_roles(const json& object, ClipVocabulary& out) {
  for (auto [key, role] : {std::pair{"bos_token", &out.start},
                           {"eos_token", &out.end},
                           {"pad_token", &out.pad},
                           {"unk_token", &out.unknown}}) {
    const std::string text = token_text(object, key);
    if (!text.empty()) *role = text;
  }
}

json object_or_empty(std::string_view text, const std::string& origin) {
  if (text.empty()) return json::object();
  json parsed = io::parse_sorted_json(text, origin);
  if (!parsed.is_object()) throw Error(ErrorCode::format, fmt::format("{}: expected a JSON object", origin));
  return parsed;
}

void take_ids(const json& object, const std::string& origin, std::map<std::string, int64_t>& out) {
  for (const auto& [token, id] : object.items()) out[token] = id_of(id, origin);
}

void take_config(std::string_view text, ClipVocabulary& out) {
  const json config = object_or_empty(text, "tokenizer_config.json");
  take_roles(config, out);
  const auto added = config.find("added_tokens_decoder");
  if (added == config.end() || !added->is_object()) return;
  for (const auto& [id, token] : added->items()) {
    if (id.empty() || id.size() > 9 || id.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(
          ErrorCode::format,
          fmt::format("tokenizer_config.json: added_tokens_decoder has the key \"{}\", expected an id",
                      io::shown(id)));
    }
    const std::string content = token_text(*added, id.c_str());
    if (!content.empty()) out.special[content] = std::stoll(id);
  }
}

/// The tokens that have a role are recognised in a text too.
void finish(ClipVocabulary& out) {
  for (const std::string& role : {out.start, out.end, out.pad, out.unknown}) {
    const auto found = out.ids.find(role);
    if (found != out.ids.end()) out.special[role] = found->second;
  }
}

void take_merge(std::string_view line, size_t number, ClipVocabulary& out) {
  const size_t gap = line.find(' ');
  if (gap == 0 || gap + 1 >= line.size() || line.find(' ', gap + 1) != std::string_view::npos) {
    throw Error(ErrorCode::format,
                fmt::format("merges, line {}: expected two symbols with a space between", number));
  }
  out.merges.emplace_back(line.substr(0, gap), line.substr(gap + 1));
}

std::string read_if_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? io::read_file(path.string(), kMaxTokenizerBytes) : std::string();
}

std::unique_ptr<Tokenizer> t5_tokenizer(std::span<const std::byte> model, const std::string& origin,
                                        const std::string& config);

fs::path existing_folder(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw Error(ErrorCode::io, fmt::format("{}: no such file or folder", path));
  return path;
}

}  // namespace

ClipVocabulary parse_clip_files(const ClipFiles& files) {
  ClipVocabulary out;
  take_ids(object_or_empty(files.vocab, "vocab.json"), "vocab.json", out.ids);
  size_t number = 0;
  for (size_t at = 0; at < files.merges.size(); ++number) {
    const size_t end = std::min(files.merges.find('\n', at), files.merges.size());
    std::string_view line = std::string_view(files.merges).substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !(number == 0 && line.starts_with("#version"))) take_merge(line, number + 1, out);
    at = end + 1;
  }
  take_config(files.config, out);
  take_roles(object_or_empty(files.special_map, "special_tokens_map.json"), out);
  take_ids(object_or_empty(files.added, "added_tokens.json"), "added_tokens.json", out.special);
  finish(out);
  return out;
}

ClipVocabulary parse_clip_json(std::string_view text, std::string_view config) {
  const std::string origin = "tokenizer.json";
  const json root = object_or_empty(text, origin);
  const json model = root.value("model", json::object());
  if (!model.is_object() || !model.contains("vocab") || !model["vocab"].is_object() ||
      !model.contains("merges") || !model["merges"].is_array() ||
      token_text(model, "end_of_word_suffix") != "</w>") {
    throw Error(ErrorCode::format,
                fmt::format("{}: expected a BPE model with \"vocab\", \"merges\" and the end-of-word "
                            "suffix \"</w>\", as CLIP's",
                            origin));
  }
  ClipVocabulary out;
  take_ids(model["vocab"], origin, out.ids);
  size_t number = 0;
  for (const json& merge : model["merges"]) {
    ++number;
    if (merge.is_string()) {
      take_merge(merge.get_ref<const std::string&>(), number, out);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      out.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      throw Error(ErrorCode::format,
                  fmt::format("{}: merge {} is neither \"a b\" nor [\"a\", \"b\"]", origin, number));
    }
  }
  out.unknown = token_text(model, "unk_token");
  for (const json& token : root.value("added_tokens", json::array())) {
    const std::string content = token_text(token, "content");
    if (!content.empty()) out.special[content] = id_of(token.value("id", json()), origin);
  }
  take_config(config, out);
  finish(out);
  return out;
}

ClipVocabulary parse_clip_merges(std::string_view text) {
  constexpr size_t kMerges = 49152 - 256 - 2;  // the file goes on with merges of a larger model
  ClipVocabulary out;
  const std::array<uint8_t, 256> order = byte_order();
  int64_t id = 0;
  for (const char* end : {"", "</w>"}) {
    for (const uint8_t byte : order) out.ids[byte_alphabet()[byte] + end] = id++;
  }
  size_t number = 0;
  for (size_t at = 0; at < text.size() && out.merges.size() < kMerges; ++number) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at = end + 1;
    if (number == 0 || line.empty()) continue;  // the first line names the file
    take_merge(line, number + 1, out);
    const auto& [left, right] = out.merges.back();
    if (!out.ids.emplace(left + right, id++).second)
      throw Error(ErrorCode::format,
                  fmt::format("merges, line {}: {} comes again", number + 1, io::shown(left + right)));
  }
  out.ids[out.start] = id++;
  out.ids[out.end] = id++;
  finish(out);
  return out;
}

std::unique_ptr<Tokenizer> load_clip_tokenizer(const std::string& path) {
  const ErrorContext context(path);
  const fs::path given = existing_folder(path);
  std::error_code ignored;
  if (!fs::is_directory(given, ignored) && given.extension() != ".json") {
    std::string text = io::read_file(path, kMaxTokenizerBytes);
    if (io::is_gzip(text)) text = io::gunzip(text, io::last_name(path), kMaxTokenizerBytes);
    return std::make_unique<ClipTokenizer>(parse_clip_merges(text));
  }
  const fs::path folder = fs::is_directory(given, ignored) ? given : given.parent_path();
  const std::string config = read_if_there(folder / "tokenizer_config.json");
  if (folder == given && fs::exists(folder / "vocab.json", ignored)) {
    return std::make_unique<ClipTokenizer>(parse_clip_files(
        {io::read_file((folder / "vocab.json").string(), kMaxTokenizerBytes),
         io::read_file((folder / "merges.txt").string(), kMaxTokenizerBytes), config,
         read_if_there(folder / "special_tokens_map.json"), read_if_there(folder / "added_tokens.json")}));
  }
  const fs::path file = folder == given ? folder / "tokenizer.json" : given;
  return std::make_unique<ClipTokenizer>(
      parse_clip_json(io::read_file(file.string(), kMaxTokenizerBytes), config));
}

std::unique_ptr<Tokenizer> load_t5_tokenizer(const std::string& path) {
  const fs::path given = existing_folder(path);
  std::error_code ignored;
  fs::path file = given;
  if (fs::is_directory(given, ignored)) {
    file = given / (fs::exists(given / "spiece.model", ignored) ? "spiece.model" : "tokenizer.json");
  }
  const std::string bytes = io::read_file(file.string(), kMaxTokenizerBytes);
  return t5_tokenizer(std::as_bytes(std::span(bytes)), file.string(),
                      read_if_there(file.parent_path() / "tokenizer_config.json"));
}

std::unique_ptr<Tokenizer> t5_tokenizer_from_bytes(std::span<const std::byte> model,
                                                   const std::string& origin) {
  return t5_tokenizer(model, origin, "");
}

namespace {

std::unique_ptr<Tokenizer> t5_tokenizer(std::span<const std::byte> model, const std::string& origin,
                                        const std::string& config) {
  const ErrorContext context(origin);
  const std::string_view bytes(reinterpret_cast<const char*>(model.data()), model.size());
  if (bytes.size() > kMaxTokenizerBytes) {
    throw Error(ErrorCode::format,
                fmt::format("{} bytes; a tokenizer has at most {}", bytes.size(), kMaxTokenizerBytes));
  }
  UnigramModel parsed = bytes.starts_with('{') ? parse_unigram_json(bytes) : parse_sentencepiece(bytes);
  add_configured_tokens(config, parsed);
  if (config.empty()) parsed.add_published_extra_ids();
  return std::make_unique<T5Tokenizer>(parsed);
}

}  // namespace

}  // namespace vkflux
