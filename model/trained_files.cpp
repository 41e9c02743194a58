#include "model/trained_files.h"

#include <filesystem>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {

namespace fs = std::filesystem;

void write_json(const std::string& path, const io::Json& json) {
  io::atomic_write(path, io::json_text(json, 2) + "\n");
}

void copy_folder(const std::string& from, const std::string& to) {
  std::error_code ec;
  if (fs::equivalent(from, to, ec)) return;
  for (const std::string& file : io::folder_entries(from)) {
    if (!io::is_folder(file)) io::atomic_write(to + "/" + io::last_name(file), io::read_file(file));
  }
}

void copy_tokenizer(const std::string& from, const std::string& to, int64_t length) {
  copy_folder(from, to);
  const std::string config = to + "/tokenizer_config.json";
  std::error_code ignored;
  if (!fs::exists(config, ignored)) return;
  io::Json json = io::read_json(config);
  if (!json.is_object()) throw Error(ErrorCode::format, config + ": expected a JSON object");
  json["model_max_length"] = length;
  write_json(config, json);
}

}  // namespace vkflux
