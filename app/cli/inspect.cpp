#include <fmt/format.h>

#include <algorithm>

#include "app/cli/cli.h"
#include "app/cli/inspect_file.h"
#include "model/io/file.h"
#include "model/io/json.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

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

void print_config(const Json& j, const char* indent) {
  if (!j.contains("config")) return;
  for (const auto& [key, value] : j["config"].items()) {
    if (key != "_class_name") print_out("{}{} = {}\n", indent, key, shorten(io::json_text(value)));
  }
}

void print_problem(const Json& j, const char* indent) {
  if (j.contains("problem")) print_out("{}problem: {}\n", indent, printable(j["problem"].get<std::string>()));
}

/// "flux.1 transformer, schnell"
std::string kind_of(const Json& j) {
  std::string out = j["kind"].get<std::string>();
  if (j.contains("variant")) out += fmt::format(", {}", j["variant"].get<std::string>());
  return out;
}

void print_checkpoint(const Json& j) {
  print_out("{}: {} ({})\n", j["path"].get<std::string>(), kind_of(j), j["layout"].get<std::string>());
  print_problem(j, "  ");
  print_out("  {} in {}, {}\n", plural(j["parameters"], "value"), plural(j["tensor_count"], "tensor"),
            megabytes(j["bytes"]));
  if (j.contains("dtypes")) {
    for (const auto& [name, row] : j["dtypes"].items()) {
      print_out("  {:<8} {:>6} tensors {:>14} values {:>12}\n", name, row["tensors"].get<int64_t>(),
                row["parameters"].get<int64_t>(), megabytes(row["bytes"]));
    }
  }
  print_config(j, "  ");
  if (j.contains("parts")) {
    for (const Json& part : j["parts"]) {
      print_out("  {}\n", kind_of(part));
      print_problem(part, "    ");
      print_config(part, "    ");
    }
  }
  if (j.contains("missing")) {
    for (const Json& kind : j["missing"]) print_out("  without {}\n", kind.get<std::string>());
  }
  if (j.contains("sha256")) print_out("  SHA-256 {}\n", io::json_text(j["sha256"]));
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

int inspect(const Common& common, const InspectOptions& o) {
  int code = kOk;
  const Json j = inspect_path(o, code);
  if (common.json) {
    print_out("{}\n", io::json_text(j, 1));
    return code;
  }
  if (!j.contains("components")) {
    print_checkpoint(j);
    return code;
  }
  for (const auto& [name, part] : j["components"].items()) print_checkpoint(part);
  const std::string pipeline =
      j.contains("pipeline") ? fmt::format(" ({})", j["pipeline"].get<std::string>()) : "";
  print_out("{}: {}{}, {}, {}\n", j["path"].get<std::string>(), j["kind"].get<std::string>(), pipeline,
            plural(j["parameters"], "value"), megabytes(j["bytes"]));
  return code;
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<InspectOptions>();
  CLI::App* c = add_command(app, "inspect", "say what a checkpoint is: model, config, tensors, metadata",
                            "vkflux inspect --tensors models/emoji/transformer", common,
                            [common, o] { return inspect(*common, *o); });
  c->add_option(
       "path", o->path,
       "a .safetensors or .gguf file, *.safetensors.index.json, a folder, or ORGANISATION/NAME[/FILE] in "
       "the Hugging Face cache")
      ->required();
  c->add_flag("--tensors", o->tensors, "list every tensor");
  c->add_flag("--hash", o->hash, "also the SHA-256 of every file");
}

}  // namespace vkflux::cli
