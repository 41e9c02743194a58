#include "app/cli/inspect_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "app/cli/cli.h"
#include "model/component.h"
#include "model/describe_lora.h"
#include "model/family.h"
#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/io/hugging_face.h"
#include "model/io/json.h"
#include "model/io/sha256.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What the tensors are: a name, and the config that follows from them (null when there is none).
struct Kind {
  std::string name = "unknown";
  Json config;
};

bool any_starts_with(const io::TensorSource& file, std::string_view prefix) {
  const auto it = file.tensors().lower_bound(std::string(prefix));
  return it != file.tensors().end() && it->first.starts_with(prefix);
}

/// config.json beside a component's tensors, or null.
io::Json component_json(const std::string& path) {
  const fs::path folder = io::is_folder(path) ? fs::path(path) : fs::path(path).parent_path();
  const std::string file = (folder / "config.json").string();
  return io::is_there(file) ? io::read_json(file) : io::Json();
}

/// A model's numbers must be floating-point ones; tables of positions, and a tokenizer carried along, aren't
/// numbers of the model.
void refuse_integers(const io::TensorSource& file) {
  int64_t count = 0;
  std::string first;
  for (const auto& [name, t] : file.tensors()) {
    const bool number = io::is_float(t.dtype);
    const bool beside = name.ends_with("position_ids") || name.ends_with("num_batches_tracked") ||
                        name.find("spiece_model") != std::string::npos || name.ends_with(".comfy_quant") ||
                        name.ends_with("scaled_fp8");
    if (number || beside) continue;
    if (count++ == 0) first = fmt::format("{} is {}", name, io::name(t.dtype));
  }
  if (count == 0) return;
  throw Error(ErrorCode::format,
              fmt::format("{} of its tensors hold integers ({}): weights quantised by another program aren't "
                          "read, get the file in f32, f16, bf16 or fp8",
                          count, first));
}

/// What isn't a part of a model.
Kind describe(const io::TensorSource& file) {
  const auto& metadata = file.metadata();
  const auto format = metadata.find("format");
  if (format != metadata.end() && format->second.starts_with("vkflux-train")) {
    Kind kind{"training checkpoint", Json::object()};
    for (const char* key : {"step", "inputs"}) {
      if (metadata.count(key)) kind.config[key] = metadata.at(key);
    }
    return kind;
  }
  for (const auto& [start, kind] : {std::pair{"flux2_ttr_controller", "routing controller"},
                                    std::pair{"flux2_ttr", "students of attention layers"}}) {
    if (format != metadata.end() && format->second.starts_with(start)) return {kind, Json()};
  }
  if (metadata.count("case") && (any_starts_with(file, "in.") || any_starts_with(file, "out.")))
    return {"golden case " + metadata.at("case"), Json()};
  if (const auto lora = lora::describe_lora(file)) return {"LoRA", Json(*lora)};
  return {};
}

/// The parts of models that a file holds; those that look like one but can't be loaded have a problem.
struct FoundPart {
  const ComponentKind* kind;
  Json config;
  std::string problem;
  int code = kOk;
};

std::vector<FoundPart> parts_of(const io::TensorSource& file) {
  std::vector<FoundPart> out;
  for (const ComponentKind& kind : component_kinds()) {
    try {
      const std::optional<io::Json> config = kind.describe(file, component_json(file.path()));
      if (!config) continue;
      out.push_back({&kind, *config, ""});
      if (kind.check) kind.check(file, *config);
      refuse_integers(file);
    } catch (const Error& e) {
      if (out.empty() || out.back().kind != &kind) out.push_back({&kind, Json(), ""});
      out.back().problem = e.what();
      out.back().code = exit_code(e.code());
    }
  }
  return out;
}

std::string family_title(std::string_view component) {
  for (const Family& family : families()) {
    for (const PartKind& part : family.parts)
      if (part.kind.name == component) return std::string(family.title);
  }
  return {};
}

/// Whose names the tensors have, and in which container.
std::string layout_of(const io::TensorSource& file) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kNames{
      {{"model.diffusion_model.", "ComfyUI"},
       {"single_transformer_blocks.", "diffusers"},
       {"double_blocks.", "BFL"},
       {"down_blocks.", "diffusers"},
       {"up_blocks.", "diffusers"},
       {"encoder.down.", "BFL"},
       {"up.0.block.", "BFL"},
       {"enc.blk.", "llama.cpp"},
       {"encoder.block.", "transformers"},
       {"encoder.layers.", "transformers"},
       {"text_model.", "transformers"}}};
  std::string names;
  for (const auto& [part, layout] : kNames) {
    const auto has = [p = part](const auto& t) { return t.first.find(p) != std::string::npos; };
    if (!names.empty() || std::none_of(file.tensors().begin(), file.tensors().end(), has)) continue;
    names = layout;
  }
  const char* container = dynamic_cast<const io::GgufFile*>(&file) ? "GGUF"
                          : file.path().ends_with(".json")         ? "safetensors in shards"
                                                                   : "safetensors";
  return names.empty() ? container : fmt::format("{} names, {}", names, container);
}

/// SHA-256 of a file, or of those that an index names.
Json hashes(const std::string& path) {
  if (!path.ends_with(".json")) return io::sha256_of_file(path);
  std::set<std::string> shards;
  const io::Json index = io::read_json(path);
  for (const auto& [tensor, shard] : index["weight_map"].items()) shards.insert(shard.get<std::string>());
  Json out = Json::object();
  for (const std::string& shard : shards)
    out[shard] = io::sha256_of_file((fs::path(path).parent_path() / shard).string());
  return out;
}

void tell(const FoundPart& part, Json& to, int& code) {
  to["kind"] = part.kind->name;
  if (const std::string title = family_title(part.kind->name); !title.empty()) to["family"] = title;
  Json config = part.config;
  if (const auto variant = config.find("variant"); variant != config.end()) {
    to["variant"] = *variant;
    config.erase("variant");
  }
  to["config"] = std::move(config);
  if (part.problem.empty()) return;
  to["problem"] = part.problem;
  code = part.code;
}

/// The name and config of one part, or of all and what a whole model would have besides.
void describe_parts(const std::vector<FoundPart>& parts, Json& j, int& code) {
  if (parts.size() == 1) return tell(parts.front(), j, code);
  j["kind"] = "several parts in one file";
  for (const FoundPart& part : parts) {
    Json one;
    tell(part, one, code);
    j["parts"].push_back(std::move(one));
  }
  for (const Family& family : families()) {
    Json missing = Json::array();
    for (const PartKind& kind : family.parts) {
      const auto is = [&](const FoundPart& p) { return p.kind->name == kind.kind.name; };
      if (std::none_of(parts.begin(), parts.end(), is)) missing.push_back(kind.kind.name);
    }
    if (missing.size() < family.parts.size() && !missing.empty()) j["missing"] = missing;
  }
}

/// Everything about one set of tensors.
Json inspect_checkpoint(const std::string& path, const InspectOptions& o, int& code) {
  const auto source = io::open_tensors(path);
  const io::TensorSource& file = *source;
  Json j{{"path", path}, {"kind", "unknown"}};
  const Kind kind = describe(file);
  j["kind"] = kind.name;
  if (!kind.config.is_null()) j["config"] = kind.config;
  if (kind.name == "unknown") {
    std::vector<FoundPart> parts = parts_of(file);
    // What only looks like a part is told of once, where there is no real one.
    const auto guess = [](const FoundPart& part) { return part.config.is_null(); };
    if (!parts.empty() && std::all_of(parts.begin(), parts.end(), guess)) {
      j["problem"] = parts.front().problem;
      code = parts.front().code;
    }
    std::erase_if(parts, guess);
    if (!parts.empty()) describe_parts(parts, j, code);
  }
  j["layout"] = layout_of(file);
  std::map<std::string, std::array<int64_t, 3>> types;  // tensors, values, bytes
  int64_t values = 0, bytes = 0;
  Json list = Json::array();
  for (const auto& [name, t] : file.tensors()) {
    const auto size = static_cast<int64_t>(t.bytes());
    auto& row = types[std::string(io::name(t.dtype))];
    row = {row[0] + 1, row[1] + t.numel(), row[2] + size};
    values += t.numel();
    bytes += size;
    if (o.tensors) list.push_back({{"name", name}, {"dtype", io::name(t.dtype)}, {"shape", t.shape}});
  }
  j["tensor_count"] = file.tensors().size();
  j["parameters"] = values;
  j["bytes"] = bytes;
  for (const auto& [name, row] : types)
    j["dtypes"][name] = {{"tensors", row[0]}, {"parameters", row[1]}, {"bytes", row[2]}};
  if (o.hash) j["sha256"] = hashes(file.path());
  j["metadata"] = file.metadata();
  if (!file.warnings().empty()) j["warnings"] = file.warnings();
  if (o.tensors) j["tensors"] = std::move(list);
  return j;
}

bool holds_tensors(const std::string& name) {
  return name.find(".safetensors") != std::string::npos || name.ends_with(".sft") || name.ends_with(".gguf");
}

/// A folder in diffusers' layout: one entry per subfolder that holds tensors. Of another folder: one per
/// file.
Json inspect_folder(const std::string& path, bool pipeline, const InspectOptions& o, int& code) {
  Json j{{"path", path}, {"kind", pipeline ? "diffusers pipeline" : "folder of files"}};
  if (pipeline) {
    const io::Json index = io::read_json((fs::path(path) / "model_index.json").string());
    j["pipeline"] = io::get_or<std::string>(index, "_class_name", "unknown", path + "/model_index.json");
  }
  Json parts = Json::object();
  int64_t values = 0, bytes = 0;
  for (const std::string& entry : io::folder_entries(path)) {
    const bool folder = io::is_folder(entry);
    if (folder != pipeline) continue;
    const std::vector<std::string> files = folder ? io::folder_entries(entry) : std::vector{entry};
    if (std::none_of(files.begin(), files.end(), holds_tensors)) continue;
    Json part = inspect_checkpoint(entry, o, code);
    values += part["parameters"].get<int64_t>();
    bytes += part["bytes"].get<int64_t>();
    parts[io::last_name(entry)] = std::move(part);
  }
  j["parameters"] = values;
  j["bytes"] = bytes;
  j["components"] = std::move(parts);
  return j;
}

/// Whether a folder without model_index.json is one part's, by the names that diffusers gives its files.
bool is_part_folder(const std::string& path) {
  try {
    io::find_checkpoint(path);
    return true;
  } catch (const Error&) {
    const std::vector<std::string> files = io::folder_entries(path);
    return std::none_of(files.begin(), files.end(), holds_tensors);  // opening it says so
  }
}

}  // namespace

Json inspect_path(const InspectOptions& o, int& code) {
  const std::string path = io::located(o.path);
  if (!io::is_there(path)) throw Error(ErrorCode::io, o.path + ": no such file or folder");
  const bool pipeline = io::is_there(path + "/model_index.json");
  if (pipeline || (io::is_folder(path) && !is_part_folder(path)))
    return inspect_folder(path, pipeline, o, code);
  return inspect_checkpoint(path, o, code);
}

}  // namespace vkflux::cli
