#include "app/cli/model_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "app/cli/numbers.h"
#include "model/io/file.h"
#include "model/model_files.h"

namespace vkflux::cli {
namespace {

constexpr int64_t kMostTextTokens = 4096;
constexpr size_t kMostStates = 64;

std::string flag_of(const std::string& part) {
  for (const Family& family : families()) {
    for (const PartKind& kind : family.parts)
      if (kind.name == part) return std::string(kind.flag);
  }
  return "--" + part;
}

std::vector<int64_t> parse_states(const std::string& text) {
  std::vector<int64_t> out;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(',', at), text.size());
    const char* last = text.data() + end;
    int64_t n = 0;
    const auto r = std::from_chars(text.data() + at, last, n);
    if (r.ec != std::errc() || r.ptr != last || n < -kMostLayers || n > kMostLayers ||
        out.size() == kMostStates)
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("\"{}\": expected numbers of hidden states with commas between, such as 9,18,27",
                      text));
    out.push_back(n);
    at = end + 1;
  }
  return out;
}

}  // namespace

void add_model_options(CLI::App& c, std::string& model, ModelFlags& flags, bool required) {
  CLI::Option* option = c.add_option("--model", model,
                                     "a folder in diffusers' layout, a .safetensors or .gguf file (of the "
                                     "transformer, with the others named by "
                                     "flags or found in ComfyUI's folders beside it, or of all parts), or "
                                     "ORGANISATION/NAME in the Hugging Face "
                                     "cache");
  if (required) option->required();
  std::vector<std::string> known;
  const auto add = [&](const std::string& flag, const std::string& name, const std::string& help) {
    if (std::find(known.begin(), known.end(), flag) != known.end()) return;
    known.push_back(flag);
    c.add_option_function<std::string>(
         flag, [&flags, name](const std::string& path) { flags.files[name] = path; }, help)
        ->type_name("FILE");
  };
  for (const Family& family : families()) {
    for (const PartKind& kind : family.parts)
      add(std::string(kind.flag), std::string(kind.name),
          fmt::format("the {} from this file or folder in place of the model's own", kind.kind.name));
    for (const std::string_view name : family.tokenizer_names)
      add("--" + std::string(name), std::string(name),
          "a tokenizer's folder or file in place of the model's own");
  }
  c.add_option("--variant", flags.variant,
               "take the files of this variant from the model's folder: fp16 for model.fp16.safetensors");
}

void add_reading_options(CLI::App& c, ModelFlags& flags) {
  c.add_option("--text-length", flags.text_length,
               "tokens of the prompt for the longest text encoder; default: the model's (512, and 256 for "
               "schnell)")
      ->transform(whole(1, kMostTextTokens));
  c.add_option_function<std::string>(
       "--text-states", [&flags](const std::string& text) { flags.text_states = parse_states(text); },
       "numbers of the text encoder's hidden states that the transformer was trained on, of models whose "
       "encoder "
       "is a language model (FLUX.2 dev: 10,20,30; klein: 9,18,27, the defaults); 0 is the embedding, -1 the "
       "last")
      ->type_name("NUMBERS")
      ->check(parsed_by([](const std::string& text) { parse_states(text); }, "NUMBERS"));
  c.add_flag(
      "--plain-prompts", flags.plain_prompts,
      "take special tokens that a prompt names (<|im_end|>, say) as plain text, where the text encoder is "
      "a language model");
  c.add_option("--ref-cache", flags.reference_cache,
               "read reference pictures once for all steps, as FLUX.2 klein-kv was trained for, and not in "
               "every step: "
               "on, off, or auto, which is on for the models that say so")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "on", "off"}));
}

void declare_model(FileUse& use, const std::string& model, const ModelFlags& flags) {
  use.reads_model("--model", model);
  for (const auto& [part, file] : flags.files) use.reads(flag_of(part), file);
  try {
    ModelOptions options;
    options.files = flags.files;
    options.variant = flags.variant;
    for (const std::string& path : find_model(model, options).files.paths()) use.reads("--model", path);
  } catch (const Error&) {  // opening it tells
  }
}

void describe_model(RunInputs& inputs, const std::string& model, const ModelFlags& flags) {
  ModelOptions options;
  options.files = flags.files;
  options.variant = flags.variant;
  const ModelFiles files = find_model(model, options).files;
  std::vector<std::string> paths;
  if (!files.folder.empty()) paths.push_back(files.folder);
  const auto add = [&](const std::string& path) {
    if (path.empty() || (!files.folder.empty() && path.starts_with(files.folder + "/"))) return;
    // An index names the files that count.
    const std::string whole =
        path.ends_with(".index.json") ? std::filesystem::path(path).parent_path().string() : path;
    if (std::find(paths.begin(), paths.end(), whole) == paths.end()) paths.push_back(whole);
  };
  for (const auto& [name, part] : files.parts) {
    add(part.path);
    add(part.config);
  }
  for (const auto& [name, path] : files.tokenizers) add(path);
  add(files.scheduler);
  inputs.set_files("model", paths);
  if (!flags.variant.empty()) inputs.set("variant", flags.variant);
}

}  // namespace vkflux::cli
