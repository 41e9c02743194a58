#include "app/sweep/prompt_list.h"

#include <fmt/format.h>

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

}  // namespace vkflux
