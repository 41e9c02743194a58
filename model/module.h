// Modules are plain structs with
//
//   template <class V> void visit(V& v) { v("weight", weight, Shape{out, in});  v.child("norm.", norm); }
//
// where the names are those of the checkpoints. Everything that goes over parameters follows from visit():
// listing, counting, placing in an arena, initialising, loading and saving.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "autograd/optim.h"
#include "autograd/tensor.h"

namespace vkflux {

/// One parameter of a module: its full name, the shape it must have, and the member that holds it.
struct Param {
  std::string name;
  Shape shape;
  Tensor* tensor;
};

/// The visitor that lists parameters.
class ParamLister {
 public:
  explicit ParamLister(std::string prefix) : prefix_(std::move(prefix)) {}
  void operator()(std::string_view name, Tensor& tensor, const Shape& shape) {
    params_.push_back({prefix_ + std::string(name), shape, &tensor});
  }
  template <class Child>
  void child(std::string_view prefix, Child& c) {
    const size_t length = prefix_.size();
    prefix_ += prefix;
    c.visit(*this);
    prefix_.resize(length);
  }
  std::vector<Param> take() { return std::move(params_); }

 private:
  std::string prefix_;
  std::vector<Param> params_;
};

/// All parameters in the order of visit(). The pointers live as long as the module stays where it is.
template <class Module>
std::vector<Param> parameters(Module& module, const std::string& prefix = "") {
  ParamLister lister(prefix);
  module.visit(lister);
  return lister.take();
}

/// Number of values in all parameters.
int64_t count(const std::vector<Param>& params);
/// Names and shapes: the argument of Arena.
std::vector<std::pair<std::string, Shape>> layout(const std::vector<Param>& params);
/// The tensors the parameters hold now.
std::vector<Tensor> tensors(const std::vector<Param>& params);
/// Makes the members the arena's tensors, starting at its tensor number `first` (training; copies nothing).
void place(const std::vector<Param>& params, const Arena& arena, size_t first = 0);
/// Gives every parameter an own f32 tensor of zeros.
void allocate(const std::vector<Param>& params, Device& device);

/// How a parameter starts: constant `a`, N(0, a^2), or uniform in [-a, a].
struct Init {
  enum class Kind { constant, normal, uniform };
  Kind kind = Kind::constant;
  float a = 0;
};
using InitRule = std::function<Init(const Param&)>;
/// Xavier: uniform with variance 2 / (fan in + fan out); convolutions count their kernel area.
Init xavier_uniform(const Shape& weight);
/// Fills the tensors the parameters hold (f32). Values depend on (seed, name) alone: the same on every
/// device, and unmoved by other parameters coming or going.
void initialise(const std::vector<Param>& params, const InitRule& rule, uint64_t seed);

}  // namespace vkflux
