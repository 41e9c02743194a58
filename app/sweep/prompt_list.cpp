#include "app/sweep/prompt_list.h"

#include <fmt/format.h>

#include <sstream>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {

std::vector<std::string> load_prompt_list(const std::string& path) {
  const std::string file(trim(path));
  if (file.empty())
    throw Error(ErrorCode::invalid_argument, "no path of a prompt list was given (a JSON array of texts)");
  const io::Json list = io::read_json(file);
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
  }
  return prompts;
}

std::vector<std::string> read_prompt_file(const std::string& path) {
  constexpr uint64_t kMostBytes = 16 << 20;
  if (path.ends_with(".json")) return load_prompt_list(path);
  std::vector<std::string> out;
  std::istringstream lines(io::read_file(path, kMostBytes));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line[0] != '#') out.push_back(line);
  }
  return out;
}

std::vector<std::string> all_prompts(const std::vector<std::string>& given, const std::string& file) {
  std::vector<std::string> out = given;
  if (!file.empty()) {
    for (std::string& prompt : read_prompt_file(file)) out.push_back(std::move(prompt));
  }
  if (!out.empty()) return out;
  throw Error(ErrorCode::invalid_argument, file.empty() ? "no prompt: give --prompt TEXT or --prompts FILE"
                                                        : fmt::format("no prompt: {} holds none", file));
}

}  // namespace vkflux
