#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <set>

#include "model/io/gguf.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"

namespace vkflux::io {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void bad(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::format, fmt::format("{}: {}", path, what));
}

constexpr std::array kStems{"diffusion_pytorch_model", "model"};
constexpr std::string_view kTensors = ".safetensors", kIndex = ".safetensors.index";

/// "fp16" of model.fp16.safetensors, model.safetensors.index.fp16.json and model.fp16.safetensors.index.json;
/// empty for the plain names; nothing for all others and for shards, which their index names.
std::optional<std::string> variant_of(std::string_view name, std::string_view stem) {
  if (!name.starts_with(stem)) return {};
  name.remove_prefix(stem.size());
  const auto word = [](std::string_view middle) -> std::optional<std::string> {
    if (middle.empty()) return std::string();
    const bool one = middle.size() > 1 && middle.front() == '.' && middle.find('.', 1) == middle.npos &&
                     middle.find("-of-") == middle.npos;
    return one ? std::optional(std::string(middle.substr(1))) : std::nullopt;
  };
  if (name.ends_with(kTensors)) return word(name.substr(0, name.size() - kTensors.size()));
  constexpr std::string_view kJson = ".json";
  const size_t index = name.find(kIndex);
  if (index == name.npos || !name.ends_with(kJson)) return {};
  const auto before = word(name.substr(0, index));
  const std::string_view tail = name.substr(index + kIndex.size());
  const auto after = word(tail.substr(0, tail.size() - std::min(tail.size(), kJson.size())));
  if (!before || !after || (!before->empty() && !after->empty())) return {};
  return before->empty() ? after : before;
}

/// Names of a folder that look like tensors.
std::vector<std::string> tensor_names(const std::string& folder) {
  std::vector<std::string> out;
  std::error_code ignored;
  fs::directory_iterator end;
  for (fs::directory_iterator it(folder, ignored); it != end && !ignored; it.increment(ignored)) {
    const std::string name = it->path().filename().string();
    if (name.find(kTensors) != name.npos || name.ends_with(".gguf")) out.push_back(name);
  }
  std::sort(out.begin(), out.end());
  return out;
}

[[noreturn]] void no_checkpoint(const std::string& folder, const std::vector<std::string>& others,
                                const std::string& variant) {
  std::error_code ignored;
  std::string hint;
  if (fs::exists(fs::path(folder) / "model_index.json", ignored)) {
    hint = "; it is a pipeline's folder: name one of its parts, such as transformer/ or vae/";
  }
  constexpr size_t kMostNamed = 3;
  if (hint.empty() && !others.empty()) {
    std::vector<std::string> named = others;
    named.resize(std::min(named.size(), kMostNamed));
    hint = fmt::format(
        "; it has {}{}: name the file itself, or give it one of these names", fmt::join(named, ", "),
        others.size() > kMostNamed ? fmt::format(" and {} more", others.size() - kMostNamed) : "");
  } else {
    for (const char* pickle : {"pytorch_model.bin", "diffusion_pytorch_model.bin"}) {
      if (fs::exists(fs::path(folder) / pickle, ignored)) {
        hint = fmt::format("; {} is a pickle file, which isn't read: convert it to .safetensors", pickle);
      }
    }
  }
  throw Error(
      ErrorCode::io,
      fmt::format("{}: this folder has neither diffusion_pytorch_model{}.safetensors nor "
                  "model{}.safetensors (nor an .index.json of either){}",
                  folder, variant.empty() ? "" : "." + variant, variant.empty() ? "" : "." + variant, hint));
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

std::string find_checkpoint(const std::string& folder, const std::string& variant) {
  const std::vector<std::string> names = tensor_names(folder);
  std::vector<std::string> variants;  // files of other variants, the first of each
  std::set<std::string> known;
  for (const char* stem : kStems) {
    for (const bool index : {false, true}) {
      for (const std::string& name : names) {
        const auto which = variant_of(name, stem);
        if (!which || name.ends_with(".json") != index) continue;
        if (*which == variant) return (fs::path(folder) / name).string();
        if (variant.empty() && known.insert(*which).second) variants.push_back(name);
      }
    }
  }
  if (variants.size() == 1) return (fs::path(folder) / variants.front()).string();
  no_checkpoint(folder, names, variant);
}

std::unique_ptr<TensorSource> open_tensors(const std::string& path) {
  const std::string file = is_folder(path) ? find_checkpoint(path) : path;
  if (file.ends_with(".json") && file.find(kIndex) != file.npos)
    return std::make_unique<ShardedTensors>(file);
  if (starts_as_gguf(file)) return std::make_unique<GgufFile>(file);
  return std::make_unique<SafetensorsFile>(file);
}

}  // namespace vkflux::io
