#include "app/sweep/prompt_list.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/io/json.h"
#include "model/io/text.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kMostBytes = 64 << 20;

bool is_json(std::string_view path) {
  constexpr std::string_view kEnd = ".json";
  return path.size() >= kEnd.size() &&
         std::equal(kEnd.begin(), kEnd.end(), path.end() - kEnd.size(),
                    [](char want, char c) { return want == (c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
}

}  // namespace

std::vector<std::string> load_prompt_list(const std::string& path) {
  const std::string file(trim(path));
  if (file.empty())
    throw Error(ErrorCode::invalid_argument, "no path of a prompt list was given (a JSON array of texts)");
  const io::Json list = io::parse_json(io::read_text(file, kMostBytes), file);
  if (!list.is_array()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: a JSON array of texts is expected, this is {}", file, list.type_name()));
  }
  std::vector<std::string> prompts;
  for (const io::Json& item : list) {
    if (!item.is_string()) {
      throw Error(ErrorCode::format, fmt::format("{}: element {} is {}, a text is expected", file,
                                                 prompts.size(), item.type_name()));
    }
    prompts.push_back(item.get<std::string>());
    if (prompts.back().find('\0') != std::string::npos) {
      throw Error(ErrorCode::format, fmt::format("{}: element {} holds a NUL character, which no text has",
                                                 file, prompts.size() - 1));
    }
  }
  return prompts;
}

std::vector<std::string> read_prompt_file(const std::string& path) {
  if (is_json(path)) return load_prompt_list(path);
  std::vector<std::string> out;
  for (std::string& line : io::split_lines(io::read_text(path, kMostBytes))) {
    while (!line.empty() && (line.back() == ' ' || line.back() == '\t')) line.pop_back();
    if (!line.empty() && line[0] != '#') out.push_back(std::move(line));
  }
  return out;
}

void check_text(std::string_view flag, const std::string& text) {
  const size_t at = io::find_bad_utf8(text);
  if (at == std::string::npos) return;
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("{}: byte 0x{:02X} at offset {} isn't UTF-8; type it in a UTF-8 locale (prompts may "
                  "come from a UTF-8 file: --prompts)",
                  flag, static_cast<unsigned char>(text[at]), at));
}

std::vector<std::string> all_prompts(const std::vector<std::string>& given, const std::string& file) {
  std::vector<std::string> out = given;
  for (const std::string& prompt : out) check_text("--prompt", prompt);
  if (!file.empty()) {
    for (std::string& prompt : read_prompt_file(file)) out.push_back(std::move(prompt));
  }
  if (!out.empty()) return out;
  if (file.empty())
    throw Error(ErrorCode::invalid_argument, "no prompt: give --prompt TEXT or --prompts FILE");
  throw Error(ErrorCode::format, fmt::format("{}: no prompt; every line is empty or starts with #", file));
}

}  // namespace vkflux
