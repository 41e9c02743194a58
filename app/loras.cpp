#include "app/loras.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "app/numbers.h"
#include "model/io/decimal.h"
#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr double kMostStrength = 1000;
constexpr std::string_view kTag = "<lora:";

float strength(std::string_view text, const std::string& what) {
  return static_cast<float>(real_number(text, {-kMostStrength, kMostStrength}, what));
}

/// The file of a name without its ending, or with it.
std::string find_lora(const std::string& folder, const std::string& name) {
  for (const char* ending : {"", ".safetensors"}) {
    const std::string path = (fs::path(folder) / (name + ending)).string();
    if (io::is_there(path) && !io::is_folder(path)) return path;
  }
  std::vector<std::string> there;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".safetensors") there.push_back(entry.path().stem().string());
  throw Error(ErrorCode::io, fmt::format("<lora:{}>: --lora-dir {} has no {}.safetensors{}", io::shown(name),
                                         folder, io::shown(name), io::nearest(name, there)));
}

/// Cuts the tags out of a prompt. -> what they ask for
std::vector<LoraUse> cut_tags(std::string& prompt, const std::string& folder) {
  std::vector<LoraUse> out;
  for (size_t at = prompt.find(kTag); at != prompt.npos; at = prompt.find(kTag, at)) {
    const size_t end = prompt.find('>', at);
    if (end == prompt.npos) break;
    std::string name = prompt.substr(at + kTag.size(), end - at - kTag.size());
    const size_t colon = name.find(':');
    LoraUse use;
    if (colon != name.npos) {
      use.weight = strength(std::string_view(name).substr(colon + 1), "<lora:" + io::shown(name) + ">");
      name.resize(colon);
    }
    if (name.empty() || name.find('/') != name.npos)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("<lora:{}>: the name of a file in --lora-dir is expected", io::shown(name)));
    use.path = find_lora(folder, name);
    out.push_back(std::move(use));
    prompt.erase(at, end + 1 - at);
  }
  if (!out.empty()) {  // blanks around them are theirs
    prompt.erase(0, prompt.find_first_not_of(' '));
    prompt.erase(prompt.find_last_not_of(' ') + 1);
  }
  return out;
}

bool same(const std::vector<LoraUse>& a, const std::vector<LoraUse>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const LoraUse& x, const LoraUse& y) {
    return x.path == y.path && x.weight == y.weight;
  });
}

}  // namespace

LoraUse parse_lora(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos || io::is_there(text)) return {text, 1};
  return {text.substr(0, colon),
          strength(std::string_view(text).substr(colon + 1), "--lora " + text + ": the weight")};
}

void LoraArgs::take_tags(std::vector<std::string>& prompts) {
  if (folder.empty()) {
    const bool any =
        std::any_of(prompts.begin(), prompts.end(), [](const auto& p) { return p.find(kTag) != p.npos; });
    if (any)
      spdlog::warn(
          "a prompt holds <lora:...>, which is read as text: --lora-dir FOLDER says where such files are");
    return;
  }
  std::optional<std::vector<LoraUse>> common;
  for (std::string& prompt : prompts) {
    const std::string whole = prompt;
    std::vector<LoraUse> tags = cut_tags(prompt, folder);
    if (common && !same(*common, tags)) {
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format(
              "prompt \"{}\" asks for other LoRAs than those before it: draw them in runs of their own",
              whole));
    }
    common = std::move(tags);
  }
  if (common) uses.insert(uses.end(), common->begin(), common->end());
}

void LoraArgs::hash() {
  hashes.clear();
  for (const LoraUse& use : uses) {
    Checksum sum;
    if (!io::is_folder(use.path)) sum.add_file(use.path);
    hashes.push_back(sum.text());
  }
}

void LoraArgs::declare(FileUse& f) const {
  for (const LoraUse& use : uses) f.reads("--lora", use.path);
}

void LoraArgs::describe(RunInputs& inputs) const {
  if (uses.empty()) return;
  std::vector<std::string> paths, weights;
  for (const LoraUse& use : uses) {
    paths.push_back(use.path);
    weights.push_back(fmt::format("{}", use.weight));
  }
  inputs.set_files("lora", paths);
  inputs.set("lora-weights", fmt::format("{}", fmt::join(weights, ", ")));
}

io::Json LoraArgs::json() const {
  io::Json out = io::Json::array();
  for (size_t i = 0; i < uses.size(); ++i) {
    out.push_back({{"name", io::last_name(uses[i].path)}, {"weight", io::decimal(uses[i].weight)}});
    if (i < hashes.size()) out.back()["hash"] = hashes[i];
  }
  return out;
}

void add_lora_option(CLI::App& command, LoraArgs& args) {
  command
      .add_option(
          "--lora", args.files,
          "a LoRA file that is applied to the model (kohya, diffusers, PEFT, ComfyUI, XLabs, BFL and LyCORIS "
          "names; LoRA, DoRA, LoHa, LoKr), with a weight behind a colon, 1 by default, below 0 too; repeat "
          "it "
          "for several")
      ->type_name("FILE[:WEIGHT]")
      ->check([](const std::string& text) {
        try {
          parse_lora(text);
        } catch (const Error& e) {
          return std::string(e.what());
        }
        return std::string();
      })
      ->each([&args](const std::string& text) { args.uses.push_back(parse_lora(text)); });
}

void add_lora_folder_option(CLI::App& command, LoraArgs& args) {
  command
      .add_option("--lora-dir", args.folder,
                  "take <lora:NAME:WEIGHT> out of the prompts and apply NAME.safetensors of this folder")
      ->type_name("FOLDER");
}

}  // namespace vkflux
