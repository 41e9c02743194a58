// The places of a model that LoRA files change, and what the files call them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "model/io/names.h"
#include "model/layers.h"
#include "model/load.h"

namespace vkflux::lora {

/// A linear layer, or the vectors of a norm.
struct Module {
  Shape weight, bias;  // [out, in] or [n]; rank 0: has none
  std::string weight_name;
  // Of a model that is here; null in a Component.
  Linear* linear = nullptr;
  Tensor *weight_tensor = nullptr, *bias_tensor = nullptr;

  bool is_linear() const { return weight.rank() == 2; }
};
/// By name: "double_blocks.0.img_attn.qkv".
using Modules = std::map<std::string, Module>;

/// The visitor that finds them.
class ModuleLister {
 public:
  explicit ModuleLister(Modules& out) : out_(out) {}
  void operator()(std::string_view name, Tensor& tensor, const Shape& shape);
  template <class Child>
  void child(std::string_view prefix, Child& c) {
    const size_t length = prefix_.size();
    prefix_ += prefix;
    if constexpr (std::is_same_v<Child, Linear>) {
      add(c);
    } else {
      c.visit(*this);
    }
    prefix_.resize(length);
  }

 private:
  void add(Linear& linear);
  Modules& out_;
  std::string prefix_;
};

/// The pointers live as long as the model stays where it is.
template <class Model>
Modules modules_of(Model& model) {
  Modules out;
  ModuleLister lister(out);
  model.visit(lister);
  return out;
}

/// A name that only LoRA files use: parts [first, first + parts) of the module's rows (parts 0: all rows).
struct Alias {
  std::string foreign, ours;  // patterns as in io::NameRule
  int first = 0, parts = 0;
  bool square = false;  // an adapter may read as many of the first columns as there are rows, instead of all
};

/// A part of a model as LoRA files see it.
struct Component {
  std::string part;  // "transformer": as the model's folder calls it
  Modules modules;
  io::NameTable names;
  RowSplit rows;  // of modules that the names split; empty: equal parts
  std::vector<Alias> aliases;
  std::vector<std::string> dotted, underscored;  // what stands before a module's name in the two styles
};

/// What a key of a file stands for.
struct Place {
  const Component* component = nullptr;
  std::string module;
  int64_t row = 0, rows = 0;  // of its weight
  bool swap_halves = false;   // the two halves of its rows are exchanged
  bool square = false;        // see Alias

  const Module& target() const { return component->modules.at(module); }
};

/// Finds modules by the keys of files. Names in which underscores stand for dots are looked up, not taken
/// apart, since they are ambiguous.
class ModuleTable {
 public:
  /// The components stay where they are.
  explicit ModuleTable(const std::vector<Component>& components);
  std::optional<Place> find(std::string_view key) const;
  bool has_part(std::string_view part) const;
  /// "; nearest: ..." of the keys that would be found, or "".
  std::string nearest(const std::string& key) const;

 private:
  struct Names {
    std::vector<std::string> prefixes;
    std::map<std::string, Place, std::less<>> places;
    bool underscored = false;
  };
  std::vector<Names> names_;
};

/// A part by its modules, which may go afterwards: names and shapes remain.
Component component_of(std::string_view part, Modules modules, const io::NameTable& names);

// What stands before the names of the parts that several families have.
std::vector<std::string> dotted_prefixes(std::string_view part);
std::vector<std::string> underscored_prefixes(std::string_view part);

}  // namespace vkflux::lora
