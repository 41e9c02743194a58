#include "model/lora/file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <set>

#include "model/io/file.h"
#include "model/lora/factors.h"
#include "vk/error.h"

namespace vkflux::lora {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxListed = 20;

// What a pattern of PEFT stands for when it is a plain name; PEFT takes it as a regular expression that the
// end of a module's name must match.
std::string plain_pattern(const std::string& pattern, const std::string& origin) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const bool escaped_dot = c == '\\' && i + 1 < pattern.size() && pattern[i + 1] == '.';
    if (escaped_dot || (c == '^' && i == 0)) continue;
    if (std::string_view("\\^$*+?()[]{}|").find(c) != std::string_view::npos) {
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: the pattern {} is a regular expression; names of modules are read", origin,
                              io::shown(pattern)));
    }
    out += c;
  }
  return out;
}

double finite_number(const io::Json& value, const std::string& what, const std::string& origin) {
  const double x = value.is_number() ? value.get<double>() : NAN;
  if (!std::isfinite(x))
    throw Error(ErrorCode::format, fmt::format("{}: {} is {}, a finite number is expected", origin,
                                               io::shown(what), io::shown(io::json_text(value))));
  return x;
}

bool ends_with_name(const std::string& key, const std::string& name) {
  return key == name ||
         (key.size() > name.size() && key.ends_with(name) && key[key.size() - name.size() - 1] == '.');
}

}  // namespace

File::File(const io::TensorSource& file, const ModuleTable& table)
    : file_(file), has_transformer_(table.has_part("transformer")) {
  const ErrorContext context(file.path());
  read_config();
  match(table);
  drop_misfits();
  refuse_overlaps();
}

void File::read_config() {
  const auto it = file_.metadata().find("lora_adapter_metadata");
  if (it != file_.metadata().end()) {
    const std::string origin = "lora_adapter_metadata";
    const io::Json json = io::parse_json(it->second, origin);
    for (const char* part : {"transformer", "text_encoder", "text_encoder_2"})
      read_config(json, part, std::string(part) + ".", origin);
    read_config(json, "", "", origin);
  }
  const fs::path beside = fs::path(file_.path()).parent_path() / "adapter_config.json";
  if (fs::path(file_.path()).filename() == "adapter_model.safetensors" && io::is_there(beside.string()))
    read_config(io::read_json(beside.string()), "", "", "adapter_config.json");
}

void File::read_config(const io::Json& json, const std::string& part, const std::string& prefix,
                       const std::string& origin) {
  if (!json.is_object()) throw Error(ErrorCode::format, origin + ": an object is expected");
  PeftConfig config;
  const auto field = [&](const std::string& name) {
    const auto f = json.find(prefix + name);
    return f == json.end() ? io::Json() : *f;
  };
  const io::Json alpha = field("lora_alpha"), patterns = field("alpha_pattern");
  if (!alpha.is_null()) config.alpha = finite_number(alpha, "lora_alpha", origin);
  if (!patterns.is_null() && !patterns.is_object())
    throw Error(ErrorCode::format, origin + ": alpha_pattern must be an object");
  for (const auto& [pattern, value] : patterns.items())
    config.alphas[plain_pattern(pattern, origin)] = finite_number(value, pattern, origin);
  const io::Json rslora = field("use_rslora");
  if (!rslora.is_null() && !rslora.is_boolean())
    throw Error(ErrorCode::format, origin + ": use_rslora must be true or false");
  config.rslora = rslora.is_boolean() && rslora.get<bool>();
  if (config.alpha || !config.alphas.empty() || config.rslora) configs_[part] = config;
}

void File::match(const ModuleTable& table) {
  std::map<std::string, size_t> by_key;
  for (const auto& [name, info] : file_.tensors()) {
    std::optional<Key> key = split_key(name);
    if (!key && info.shape.size() == 1 && (name.ends_with(".scale") || name.ends_with(".weight")))
      key = Key{name.substr(0, name.rfind('.')), Role::value, ""};
    if (!key) {
      unmatched_.push_back({name, "no adapter has a tensor with such a name"});
      continue;
    }
    if (key->role == Role::foreign) {
      unmatched_.push_back({name, "its method isn't read; LoRA, DoRA, LoHa, LoKr and full differences are"});
      continue;
    }
    std::optional<Place> place = table.find(key->module);
    if (place && key->role == Role::value && place->target().is_linear()) place.reset();  // of a checkpoint
    if (!place) {
      if (nearest_.empty()) nearest_ = table.nearest(key->module);
      unmatched_.push_back({name, key->role == Role::value ? "it is no adapter" : "no module has this name"});
      continue;
    }
    const auto [it, fresh] = by_key.try_emplace(key->module, adapters_.size());
    if (fresh) adapters_.push_back({key->module, *place, {}});
    const auto [other, first] = adapters_[it->second].tensors.emplace(key->role, name);
    if (!first)
      throw Error(ErrorCode::format, fmt::format("{} and {} are the same thing: which of them is meant?",
                                                 io::shown(other->second), io::shown(name)));
  }
}

void File::drop_misfits() {
  std::vector<Adapter> fitting;
  for (Adapter& a : adapters_) {
    const std::string why = check_factors(*this, a);
    if (why.empty()) {
      fitting.push_back(std::move(a));
      continue;
    }
    for (const auto& [role, name] : a.tensors) unmatched_.push_back({name, why});
  }
  adapters_ = std::move(fitting);
}

void File::refuse_overlaps() const {
  std::map<std::pair<const Component*, std::string>, std::vector<const Adapter*>> by_module;
  for (const Adapter& a : adapters_) by_module[{a.place.component, a.place.module}].push_back(&a);
  for (auto& [module, list] : by_module) {
    std::sort(list.begin(), list.end(),
              [](const auto* a, const auto* b) { return a->place.row < b->place.row; });
    for (size_t i = 1; i < list.size(); ++i) {
      const Adapter &a = *list[i - 1], &b = *list[i];
      if (b.place.row >= a.place.row + a.place.rows) continue;
      throw Error(
          ErrorCode::format,
          fmt::format("{} and {} both change {}: the file holds one adapter in two dialects, or two adapters",
                      io::shown(a.tensors.begin()->second), io::shown(b.tensors.begin()->second),
                      module.second));
    }
  }
}

size_t File::adapters_of(const std::string& part) const {
  return static_cast<size_t>(std::count_if(adapters_.begin(), adapters_.end(), [&](const Adapter& a) {
    return part.empty() || a.place.component->part == part;
  }));
}

std::string File::report() const {
  std::string out = fmt::format("{} of {} tensors match, {} modules", matched(), tensors(), adapters_.size());
  for (size_t i = 0; i < std::min(kMaxListed, unmatched_.size()); ++i)
    out += fmt::format("\n  not used: {} ({})", io::shown(unmatched_[i].tensor), unmatched_[i].why);
  if (unmatched_.size() > kMaxListed) out += fmt::format("\n  and {} more", unmatched_.size() - kMaxListed);
  return out;
}

void File::refuse_strangers() const {
  const bool text_alone = has_transformer_ && !adapters_.empty() && adapters_of("transformer") == 0;
  const bool others = std::any_of(unmatched_.begin(), unmatched_.end(), [](const Unmatched& u) {
    return !u.tensor.starts_with("lora_te") && !u.tensor.starts_with("text_encoder");
  });
  const bool norms_alone =
      !adapters_.empty() && std::all_of(adapters_.begin(), adapters_.end(), [](const Adapter& a) {
        return a.tensors.size() == 1 && a.has(Role::value);
      });
  if (norms_alone && !unmatched_.empty()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: it holds a model's weights and no adapter: give it as --model "
                            "or --diffusion-model\n{}",
                            file_.path(), report()));
  }
  if (!adapters_.empty() && !(text_alone && others)) return;
  throw Error(ErrorCode::format,
              fmt::format("{}: none of its tensors changes this model{}{}\n{}", file_.path(),
                          text_alone ? "'s transformer: it is for another model" : "", nearest_, report()));
}

double File::scale(const Adapter& a, int64_t rank) const {
  std::optional<double> alpha;
  bool rslora = false;
  if (a.has(Role::alpha)) {
    alpha = static_cast<double>(values(a.tensors.at(Role::alpha))[0]);
  } else {
    auto config = configs_.find(a.place.component->part);
    if (config == configs_.end()) config = configs_.find("");
    if (config != configs_.end()) {
      rslora = config->second.rslora;
      alpha = config->second.alpha;
      for (const auto& [name, value] : config->second.alphas)
        if (ends_with_name(a.key, name)) alpha = value;
    }
  }
  if (!alpha || rank == 0) return 1;
  const auto r = static_cast<double>(rank);
  return *alpha / (rslora ? std::sqrt(r) : r);
}

std::vector<float> File::values(const std::string& tensor) const {
  std::vector<float> out = file_.read_f32(tensor);
  const auto odd = std::find_if(out.begin(), out.end(), [](float v) { return !std::isfinite(v); });
  if (odd != out.end()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {} holds {}: the file is damaged", file_.path(), io::shown(tensor), *odd));
  }
  return out;
}

std::vector<int64_t> File::shape(const std::string& tensor) const {
  std::vector<int64_t> s = file_.info(tensor).shape;
  while (s.size() > 2 && s.back() == 1) s.pop_back();
  return s;
}

std::unique_ptr<io::TensorSource> open_lora(const std::string& path) {
  if (io::is_folder(path)) {
    for (const char* name : {"adapter_model.safetensors", "pytorch_lora_weights.safetensors"}) {
      const std::string file = (fs::path(path) / name).string();
      if (io::is_there(file)) return io::open_tensors(file);
    }
    throw Error(ErrorCode::io, fmt::format("{}: a folder without adapter_model.safetensors or "
                                           "pytorch_lora_weights.safetensors; give the LoRA's file",
                                           path));
  }
  return io::open_tensors(path);
}

}  // namespace vkflux::lora
