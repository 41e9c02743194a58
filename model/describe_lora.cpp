#include "model/describe_lora.h"

#include <algorithm>
#include <set>

#include "model/family.h"
#include "model/lora/file.h"

namespace vkflux::lora {
namespace {

constexpr size_t kMaxNumbers = 16;  // of ranks or alphas that are listed

/// The name of the method that a tensor is the mark of, or null.
const char* method_of(const Key& key) {
  switch (key.role) {
    case Role::down:
      // Other models have layers called "down".
      return key.suffix == ".down.weight" && key.module.find(".processor.") == key.module.npos ? nullptr
                                                                                               : "LoRA";
    case Role::w1_a:
      return "LoHa";
    case Role::k1:
    case Role::k1_a:
      return "LoKr";
    case Role::diff:
      return "full difference";
    default:
      return nullptr;
  }
}

bool rank_in_rows(Role r) {
  return r == Role::down;
}

/// A family's names, which take a moment to put together.
struct Names {
  const Family& family;
  std::vector<Component> components = family.lora_components();
  ModuleTable table{components};
};

const std::vector<std::unique_ptr<Names>>& known_names() {
  static const std::vector<std::unique_ptr<Names>> names = [] {
    std::vector<std::unique_ptr<Names>> out;
    for (const Family& f : families())
      if (f.lora_components) out.push_back(std::unique_ptr<Names>(new Names{f}));
    return out;
  }();
  return names;
}

/// Matched tensors of each part of one family.
io::Json targets_in(const io::TensorSource& file, const ModuleTable& table, size_t& matched) {
  io::Json parts = io::Json::object();
  matched = 0;
  for (const auto& [name, info] : file.tensors()) {
    const auto key = split_key(name);
    const auto place = key ? table.find(key->module) : std::nullopt;
    if (!place) continue;
    const std::string& part = place->component->part;
    parts[part] = parts.value(part, int64_t{0}) + 1;
    ++matched;
  }
  return parts;
}

}  // namespace

std::optional<io::Json> describe_lora(const io::TensorSource& file) {
  std::set<std::string> dialects, methods;
  std::set<int64_t> ranks;
  std::set<float> alphas;
  int64_t layers = 0;
  bool decomposed = false, biased = false;
  for (const auto& [name, info] : file.tensors()) {
    const auto key = split_key(name);
    if (!key) continue;
    decomposed = decomposed || key->role == Role::magnitude;
    biased = biased || key->role == Role::up_bias;
    if (key->role == Role::alpha && info.numel() == 1 && io::is_float(info.dtype) &&
        alphas.size() < kMaxNumbers)
      alphas.insert(file.read_f32(name)[0]);
    const char* method = method_of(*key);
    if (!method) continue;
    ++layers;
    methods.insert(method);
    dialects.insert(std::string(dialect_of(*key)));
    const bool has_rank = (rank_in_rows(key->role) && !info.shape.empty()) ||
                          (key->role == Role::w1_a && info.shape.size() == 2);
    if (has_rank && ranks.size() < kMaxNumbers) ranks.insert(info.shape[rank_in_rows(key->role) ? 0 : 1]);
  }
  if (layers == 0) return {};
  if (biased && dialects.count("names without a prefix")) dialects = {"BFL control"};
  std::string method = *methods.begin();
  for (auto it = std::next(methods.begin()); it != methods.end(); ++it) method += " and " + *it;
  if (decomposed) method += " (DoRA)";
  io::Json j{{"method", method}, {"dialect", dialects}, {"layers", layers}};
  if (!ranks.empty()) j["ranks"] = ranks;
  if (!alphas.empty()) j["alphas"] = alphas;
  size_t best = 0;
  for (const auto& names : known_names()) {
    size_t matched = 0;
    io::Json targets = targets_in(file, names->table, matched);
    if (matched <= best) continue;
    best = matched;
    j["for"] = names->family.title;
    j["targets"] = std::move(targets);
  }
  j["unmatched"] = file.tensors().size() - best;
  return j;
}

}  // namespace vkflux::lora
