#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "app/cli/cli.h"
#include "model/component.h"
#include "model/describe_lora.h"
#include "model/io/file.h"
#include "model/io/json.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What the tensors are: a name, and the config that follows from them (null when there is none).
struct Kind {
  std::string name = "unknown";
  Json config;
  bool component = false;  // part of a model that we load
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
                        name.find("spiece_model") != std::string::npos;
    if (number || beside) continue;
    if (count++ == 0) first = fmt::format("{} is {}", name, io::name(t.dtype));
  }
  if (count == 0) return;
  throw Error(ErrorCode::format,
              fmt::format("{} of its tensors hold integers ({}): weights quantised by another program aren't "
                          "read, get the file in f32, f16, bf16 or fp8",
                          count, first));
}

/// Throws error format or unsupported when it looks like a known model but can't be loaded as one.
Kind describe(const io::TensorSource& file) {
  const auto& metadata = file.metadata();
  const auto format = metadata.find("format");
  if (format != metadata.end() && format->second.starts_with("vkflux-train")) {
    Kind kind{"training checkpoint", Json::object(), false};
    for (const char* key : {"step", "inputs"}) {
      if (metadata.count(key)) kind.config[key] = metadata.at(key);
    }
    return kind;
  }
  for (const auto& [start, kind] : {std::pair{"flux2_ttr_controller", "routing controller"},
                                    std::pair{"flux2_ttr", "students of attention layers"}}) {
    if (format != metadata.end() && format->second.starts_with(start)) return {kind, Json(), false};
  }
  if (metadata.count("case") && (any_starts_with(file, "in.") || any_starts_with(file, "out.")))
    return {"golden case " + metadata.at("case"), Json(), false};
  if (const auto lora = lora::describe_lora(file)) return {"LoRA", Json(*lora), false};
  for (const ComponentKind& kind : component_kinds()) {
    if (const auto config = kind.describe(file, component_json(file.path())))
      return {std::string(kind.name), Json(*config), true};
  }
  return {};
}

struct Options {
  std::string path;
  bool tensors = false;
};

/// Everything about one set of tensors; `code` becomes the exit code of what is wrong with it.
Json inspect_checkpoint(const std::string& path, bool tensors, int& code) {
  const auto source = io::open_tensors(path);
  const io::TensorSource& file = *source;
  Json j{{"path", path}, {"kind", "unknown"}};
  try {
    const Kind kind = describe(file);
    j["kind"] = kind.name;
    if (!kind.config.is_null()) j["config"] = kind.config;
    if (kind.component) refuse_integers(file);
  } catch (const Error& e) {
    j["problem"] = e.what();
    code = exit_code(e.code());
  }
  std::map<std::string, std::array<int64_t, 3>> types;  // tensors, values, bytes
  int64_t values = 0, bytes = 0;
  Json list = Json::array();
  for (const auto& [name, t] : file.tensors()) {
    const auto size = static_cast<int64_t>(t.bytes());
    auto& row = types[std::string(io::name(t.dtype))];
    row = {row[0] + 1, row[1] + t.numel(), row[2] + size};
    values += t.numel();
    bytes += size;
    if (tensors) list.push_back({{"name", name}, {"dtype", io::name(t.dtype)}, {"shape", t.shape}});
  }
  j["tensor_count"] = file.tensors().size();
  j["parameters"] = values;
  j["bytes"] = bytes;
  for (const auto& [name, row] : types)
    j["dtypes"][name] = {{"tensors", row[0]}, {"parameters", row[1]}, {"bytes", row[2]}};
  j["metadata"] = file.metadata();
  if (!file.warnings().empty()) j["warnings"] = file.warnings();
  if (tensors) j["tensors"] = std::move(list);
  return j;
}

/// A folder in diffusers' layout: one entry per subfolder that holds tensors.
Json inspect_pipeline(const Options& o, int& code) {
  const io::Json index = io::read_json((fs::path(o.path) / "model_index.json").string());
  Json j{{"path", o.path}, {"kind", "diffusers pipeline"}};
  j["pipeline"] = io::get_or<std::string>(index, "_class_name", "unknown", o.path + "/model_index.json");
  int64_t values = 0, bytes = 0;
  Json parts = Json::object();
  for (const std::string& folder : io::folder_entries(o.path)) {
    if (!io::is_folder(folder)) continue;
    const std::vector<std::string> files = io::folder_entries(folder);
    const bool holds_tensors = std::any_of(files.begin(), files.end(), [](const std::string& file) {
      return io::last_name(file).find(".safetensors") != std::string::npos;
    });
    if (!holds_tensors) continue;
    Json part = inspect_checkpoint(folder, o.tensors, code);
    values += part["parameters"].get<int64_t>();
    bytes += part["bytes"].get<int64_t>();
    parts[io::last_name(folder)] = std::move(part);
  }
  j["parameters"] = values;
  j["bytes"] = bytes;
  j["components"] = std::move(parts);
  return j;
}

/// Texts of a file, fit for a terminal.
std::string printable(const std::string& text) {
  return io::shown(io::valid_utf8(text));
}

std::string shorten(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.size() > 100 ? text.substr(0, 97) + "..." : text;
}

std::string plural(int64_t n, const char* what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::string megabytes(const Json& bytes) {
  return fmt::format("{:.2f} MB", bytes.get<double>() * 1e-6);
}

void print_checkpoint(const Json& j) {
  print_out("{}: {}\n", j["path"].get<std::string>(), j["kind"].get<std::string>());
  if (j.contains("problem")) print_out("  problem: {}\n", printable(j["problem"].get<std::string>()));
  print_out("  {} in {}, {}\n", plural(j["parameters"], "value"), plural(j["tensor_count"], "tensor"),
            megabytes(j["bytes"]));
  if (j.contains("dtypes")) {
    for (const auto& [name, row] : j["dtypes"].items()) {
      print_out("  {:<8} {:>6} tensors {:>14} values {:>12}\n", name, row["tensors"].get<int64_t>(),
                row["parameters"].get<int64_t>(), megabytes(row["bytes"]));
    }
  }
  if (j.contains("config")) {
    for (const auto& [key, value] : j["config"].items()) {
      if (key != "_class_name") print_out("  {} = {}\n", key, shorten(io::json_text(value)));
    }
  }
  for (const auto& [key, value] : j["metadata"].items())
    print_out("  metadata {}: {}\n", printable(key), printable(shorten(value.get<std::string>())));
  if (j.contains("warnings")) {
    for (const Json& warning : j["warnings"])
      print_out("  warning: {}\n", printable(warning.get<std::string>()));
  }
  if (!j.contains("tensors")) return;
  for (const Json& t : j["tensors"]) {
    print_out("  {:<8} {:<24} {}\n", t["dtype"].get<std::string>(), io::json_text(t["shape"]),
              printable(t["name"].get<std::string>()));
  }
}

int inspect(const Common& common, const Options& o) {
  if (!io::is_there(o.path)) throw Error(ErrorCode::io, o.path + ": no such file or folder");
  int code = kOk;
  const bool pipeline = io::is_there(o.path + "/model_index.json");
  const Json j = pipeline ? inspect_pipeline(o, code) : inspect_checkpoint(o.path, o.tensors, code);
  if (common.json) {
    print_out("{}\n", io::json_text(j, 1));
    return code;
  }
  if (!pipeline) {
    print_checkpoint(j);
    return code;
  }
  for (const auto& [name, part] : j["components"].items()) print_checkpoint(part);
  print_out("{}: {} ({}), {}, {}\n", o.path, j["kind"].get<std::string>(), j["pipeline"].get<std::string>(),
            plural(j["parameters"], "value"), megabytes(j["bytes"]));
  return code;
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(app, "inspect", "say what a checkpoint is: model, config, tensors, metadata",
                            "vkflux inspect --tensors models/emoji/transformer", common,
                            [common, o] { return inspect(*common, *o); });
  c->add_option("path", o->path,
                "safetensors file, *.safetensors.index.json, or folder (one model or diffusers layout)")
      ->required();
  c->add_flag("--tensors", o->tensors, "list every tensor");
}

}  // namespace vkflux::cli
