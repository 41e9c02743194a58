#include "model/lora/modules.h"

#include <algorithm>
#include <numeric>

namespace vkflux::lora {
namespace {

std::string underscored(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

// Row numbers at which the parts of a module's weight begin, and its end.
std::vector<int64_t> part_starts(const Component& c, const Module& m, size_t parts) {
  std::vector<int64_t> sizes;
  if (c.rows) sizes = c.rows({m.weight_name, m.weight, nullptr});
  if (sizes.empty())
    sizes.assign(std::max<size_t>(parts, 1), m.weight[0] / static_cast<int64_t>(std::max<size_t>(parts, 1)));
  std::vector<int64_t> out{0};
  for (const int64_t n : sizes) out.push_back(out.back() + n);
  return out;
}

// "x.weight" -> "x"
std::string module_of(const std::string& param) {
  return param.substr(0, param.rfind('.'));
}

void add_names(const Component& c, const std::string& name, const Module& m,
               std::map<std::string, Place, std::less<>>& out) {
  const Place whole{&c, name, 0, m.weight[0]};
  out.emplace(name, whole);
  const std::vector<io::ForeignName> foreign = io::foreign_names(m.weight_name, c.names);
  int last = -1;
  for (const io::ForeignName& f : foreign)
    if (f.kind == io::NameRule::Kind::rows) last = std::max(last, f.part);
  const std::vector<int64_t> starts = part_starts(c, m, static_cast<size_t>(last + 1));
  const auto at = [&](int part) { return starts[std::min(static_cast<size_t>(part), starts.size() - 1)]; };
  for (const io::ForeignName& f : foreign) {
    Place place = whole;
    place.swap_halves = f.kind == io::NameRule::Kind::swap_halves;
    if (f.kind == io::NameRule::Kind::rows) {
      place.row = at(f.part);
      place.rows = at(f.part + 1) - place.row;
    }
    out.emplace(module_of(f.name), place);
  }
  for (const Alias& a : c.aliases) {
    const std::string alias = io::rename(name, a.ours, a.foreign);
    if (alias.empty()) continue;
    Place place = whole;
    place.square = a.square;
    if (a.parts > 0) {
      place.row = at(a.first);
      place.rows = at(a.first + a.parts) - place.row;
    }
    out.emplace(alias, place);
  }
}

}  // namespace

void ModuleLister::operator()(std::string_view name, Tensor& tensor, const Shape& shape) {
  if (shape.rank() != 1) return;  // tables, which aren't changed
  const std::string full = prefix_ + std::string(name);
  Module& m = out_[module_of(full)];
  if (full.ends_with(".bias")) {
    m.bias = shape;
    m.bias_tensor = &tensor;
  } else {
    m.weight = shape;
    m.weight_name = full;
    m.weight_tensor = &tensor;
  }
}

void ModuleLister::add(Linear& linear) {
  Module& m = out_[prefix_.substr(0, prefix_.size() - 1)];
  m.linear = &linear;
  m.weight = {linear.out, linear.in};
  if (linear.has_bias) m.bias = {linear.out};
  m.weight_name = prefix_ + "weight";
  m.weight_tensor = &linear.weight;
  m.bias_tensor = &linear.bias;
}

ModuleTable::ModuleTable(const std::vector<Component>& components) {
  for (const Component& c : components) {
    Names dotted{c.dotted, {}, false}, flat{c.underscored, {}, true};
    for (const auto& [name, m] : c.modules) add_names(c, name, m, dotted.places);
    for (const auto& [name, place] : dotted.places) flat.places.emplace(underscored(name), place);
    names_.push_back(std::move(dotted));
    names_.push_back(std::move(flat));
  }
}

std::optional<Place> ModuleTable::find(std::string_view key) const {
  for (const Names& n : names_) {
    for (const std::string& prefix : n.prefixes) {
      if (!key.starts_with(prefix)) continue;
      std::string name(key.substr(prefix.size()));
      if (name.starts_with("sformer_blocks.")) name = "tran" + name;  // cut too far by some programs
      const auto it = n.places.find(name);
      if (it != n.places.end()) return it->second;
    }
  }
  return {};
}

bool ModuleTable::has_part(std::string_view part) const {
  return std::any_of(names_.begin(), names_.end(), [&](const Names& n) {
    return !n.places.empty() && n.places.begin()->second.component->part == part;
  });
}

std::string ModuleTable::nearest(const std::string& key) const {
  std::vector<std::string> candidates;
  for (const Names& n : names_) {
    // The prefix that fits best; the empty one only where no other fits.
    const std::string* best = nullptr;
    for (const std::string& prefix : n.prefixes)
      if (key.starts_with(prefix) && (!best || prefix.size() > best->size())) best = &prefix;
    if (!best) continue;
    for (const auto& [name, place] : n.places) candidates.push_back(*best + name);
  }
  return io::nearest(key, candidates);
}

Component component_of(std::string_view part, Modules modules, const io::NameTable& names) {
  Component c;
  c.part = part;
  c.modules = std::move(modules);
  for (auto& [name, m] : c.modules) {
    m.linear = nullptr;
    m.weight_tensor = m.bias_tensor = nullptr;
  }
  c.names = names;
  c.dotted = dotted_prefixes(part);
  c.underscored = underscored_prefixes(part);
  return c;
}

std::vector<std::string> dotted_prefixes(std::string_view part) {
  if (part == "text_encoder") {
    return {"text_encoder.", "base_model.model.text_encoder.", "text_encoders.clip_l.transformer.",
            "clip_l.transformer.", "clip_l."};
  }
  if (part == "text_encoder_2") {
    return {"text_encoder_2.",
            "base_model.model.text_encoder_2.",
            "text_encoders.t5xxl.transformer.",
            "t5xxl.transformer.",
            "t5xxl.",
            "t5."};
  }
  return {"transformer.",
          "diffusion_model.",
          "model.diffusion_model.",
          "base_model.model.",
          "base_model.model.transformer.",
          "base_model.model.diffusion_model.",
          "base_model.model.model.",
          "model.",
          "unet.",
          ""};
}

std::vector<std::string> underscored_prefixes(std::string_view part) {
  if (part == "text_encoder") return {"lora_te1_", "lora_te_", "lycoris_te1_", "lycoris_te_", "lora_clip_l_"};
  if (part == "text_encoder_2")
    return {"lora_te2_", "lora_te3_", "lycoris_te2_", "lycoris_te3_", "lora_t5xxl_"};
  return {"lora_unet_", "lora_transformer_", "lycoris_", "lycoris_unet_", "lycoris_transformer_"};
}

}  // namespace vkflux::lora
