#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "model/io/gguf.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux::io {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

// The checkpoint of a folder, by the names that diffusers and transformers give it.
std::string file_in_folder(const std::string& folder) {
  std::error_code ignored;
  for (const char* stem : {"diffusion_pytorch_model", "model"}) {
    for (const char* ext : {".safetensors", ".safetensors.index.json"}) {
      const fs::path p = fs::path(folder) / (std::string(stem) + ext);
      if (fs::exists(p, ignored)) return p.string();
    }
  }
  std::string hint;
  if (fs::exists(fs::path(folder) / "model_index.json", ignored)) {
    hint = "; it is a pipeline's folder: name one of its parts, such as transformer/ or vae/";
  }
  // Variants ("model.fp16.safetensors") and other names: whoever means one of these can say so.
  std::vector<std::string> others;
  fs::directory_iterator end;
  for (fs::directory_iterator it(folder, ignored); it != end; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) others.push_back(name);
    if (ignored) break;
  }
  std::sort(others.begin(), others.end());
  constexpr size_t kMostNamed = 3;
  if (!others.empty()) {
    const bool more = others.size() > kMostNamed;
    const size_t count = others.size();
    others.resize(std::min(count, kMostNamed));
    hint = fmt::format("; it has {}{}: name the file itself, or give it one of these names",
                       fmt::join(others, ", "), more ? fmt::format(" and {} more", count - kMostNamed) : "");
  }
  for (const char* pickle : {"pytorch_model.bin", "diffusion_pytorch_model.bin"}) {
    if (fs::exists(fs::path(folder) / pickle, ignored)) {
      hint = fmt::format("; {} is a pickle file, which isn't read: convert it to .safetensors", pickle);
    }
  }
  throw Error(
      ErrorCode::io,
      fmt::format("{}: this folder has neither diffusion_pytorch_model.safetensors nor model.safetensors "
                  "(nor an .index.json of either){}",
                  folder, hint));
}

// Shard path -> the tensors that the index expects in it.
std::map<std::string, std::vector<std::string>> read_index(const std::string& file) {
  const nlohmann::json index = parse_sorted_json(read_file(file, 64ull << 20), file);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object()) bad(file, "weight_map is missing or no JSON object");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) bad(file, fmt::format("tensor {}: its shard is no string", shown(tensor)));
    const auto& text = shard.get_ref<const std::string&>();
    const fs::path p(text);
    if (p.is_absolute() || p.empty() || text.find('\\') != std::string::npos ||
        text.find('\0') != std::string::npos ||
        std::any_of(p.begin(), p.end(), [](const auto& part) { return part == ".."; })) {
      bad(file, fmt::format("tensor {}: the shard path {} leaves the folder", shown(tensor), shown(text)));
    }
    shards[(fs::path(file).parent_path() / p.lexically_normal()).string()].push_back(tensor);
  }
  if (shards.empty()) bad(file, "weight_map is empty");
  return shards;
}

// The shards of an index as one set.
class ShardedTensors : public TensorSource {
 public:
  explicit ShardedTensors(const std::string& index) : TensorSource(index) {
    std::map<std::string, size_t> seen;  // tensor -> shard, listed by the index or not
    for (const auto& [shard, listed] : read_index(index)) {
      const size_t number = files_.size();
      files_.push_back(std::make_unique<SafetensorsFile>(shard));
      const SafetensorsFile& f = *files_.back();
      for (const auto& [name, info] : f.tensors()) {
        const auto [it, fresh] = seen.emplace(name, number);
        if (!fresh)
          bad(shard, fmt::format("tensor {} is also in {}", shown(name), files_[it->second]->path()));
      }
      for (const std::string& name : listed) {
        tensors_.emplace(name, f.info(name));
        owner_[name] = number;
      }
      if (listed.size() < f.tensors().size()) {
        warnings_.push_back(fmt::format("{}: {} tensors that {} doesn't list were left out", shard,
                                        f.tensors().size() - listed.size(), index));
      }
    }
    metadata_ = files_.front()->metadata();
  }

 private:
  void read_range(const TensorInfo& t, uint64_t offset, std::span<std::byte> out) const override {
    files_[owner_.at(t.name)]->read(t, offset, out);
  }

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, size_t> owner_;
};

}  // namespace

namespace {

bool starts_as_gguf(const std::string& path) {
  const ReadFile file(path);
  std::array<char, 4> start{};
  if (file.size() < start.size()) return path.ends_with(".gguf");
  file.read(0, std::as_writable_bytes(std::span(start)));
  return is_gguf({start.data(), start.size()});
}

}  // namespace

std::unique_ptr<TensorSource> open_tensors(const std::string& path) {
  std::error_code ignored;
  const std::string file = fs::is_directory(path, ignored) ? file_in_folder(path) : path;
  if (file.ends_with(".index.json")) return std::make_unique<ShardedTensors>(file);
  if (starts_as_gguf(file)) return std::make_unique<GgufFile>(file);
  return std::make_unique<SafetensorsFile>(file);
}

}  // namespace vkflux::io
