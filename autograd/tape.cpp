#include "autograd/tape.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {
namespace {

Tape*& current() {
  thread_local Tape* tape = nullptr;
  return tape;
}

}  // namespace

bool Tape::recording() {
  return current() != nullptr;
}

Tape::Scope::Scope(Tape* tape) : previous_(current()) {
  current() = tape;
}
Tape::Scope::~Scope() {
  current() = previous_;
}

Tensor Grads::of(uint64_t id) const {
  const auto it = map_.find(id);
  if (it != map_.end()) return it->second.grad;
  const auto d = destinations_.find(id);
  return d == destinations_.end() ? Tensor() : d->second.grad;
}

bool Grads::wants(const Tensor& x) const {
  return std::any_of(tapes_.begin(), tapes_.end(), [&](const Tape* t) { return t->active(x); });
}

void Grads::collect(const Tensor& x, const Tensor& destination, bool empty) {
  destinations_[x.id()] = {destination, empty};
}

Tensor Grads::collected(const Tensor& x, Destination** whole) {
  if (const auto d = destinations_.find(x.id()); d != destinations_.end()) {
    *whole = &d->second;
    return d->second.grad;
  }
  for (const Tape* t : tapes_) {
    const auto part = t->parts_.find(x.id());
    if (part == t->parts_.end()) continue;
    const auto d = destinations_.find(part->second.whole);
    if (d == destinations_.end()) break;
    *whole = &d->second;
    return d->second.grad.slice(part->second.dim, part->second.start, x.dim(part->second.dim));
  }
  return {};
}

Grads::Place Grads::place_for(const Tensor& x, std::optional<AddsTo> adds_to) {
  Destination* whole = nullptr;
  if (const Tensor at = collected(x, &whole); at.defined()) {
    const bool bindable = at.is_bindable();
    const bool dense_rows = at.is_contiguous() || (at.rank() == 2 && at.strides()[1] == 1);
    if (bindable || (adds_to == AddsTo::dense_rows && dense_rows)) {
      // Kernels may write a last vec4 past the end, where others' zeros must stay.
      const bool all = at.numel() == whole->grad.numel();
      if (all && whole->empty && at.numel() % 4 == 0) return {at, Store::overwrite, true};
      if (adds_to) return {at, Store::add, true};
    }
  } else if (const auto it = map_.find(x.id()); it != map_.end() && it->second.ours && adds_to) {
    return {it->second.grad, Store::add, true};
  }
  return {Tensor::empty(x.device(), x.shape()), Store::overwrite, false};
}

void Grads::settle(const Tensor& x, const Place& place) {
  Destination* whole = nullptr;
  const bool is_collected = collected(x, &whole).defined();
  if (is_collected && place.collects) {
    whole->empty = false;
  } else if (!is_collected && !has(x.id())) {
    map_[x.id()] = {place.memory, true};
  } else if (!place.collects) {
    add(x, place.memory);
  }
}

void Grads::add(const Tensor& x, const Tensor& dx) {
  if (!wants(x)) return;
  if (!(dx.shape() == x.shape())) {
    throw Error(ErrorCode::internal,
                fmt::format("gradient {} for a tensor {}", dx.shape().str(), x.shape().str()));
  }
  Destination* whole = nullptr;
  if (const Tensor at = collected(x, &whole); at.defined()) {
    whole->empty = false;
    op::accumulate(at, dx);
    return;
  }
  const auto it = map_.find(x.id());
  if (it == map_.end()) {
    map_[x.id()] = {op::contiguous(dx), false};
  } else {
    it->second = {op::add(it->second.grad, dx), true};
  }
}

void Grads::add_slice(const Tensor& x, int dim, int64_t start, const Tensor& dx) {
  if (!wants(x)) return;
  if (const auto d = destinations_.find(x.id()); d != destinations_.end()) {
    d->second.empty = false;
    op::accumulate(d->second.grad.slice(dim, start, dx.dim(dim)), dx);
    return;
  }
  Slot& slot = map_[x.id()];
  if (!slot.ours) {
    const Tensor own =
        slot.grad.defined() ? Tensor::empty(dx.device(), x.shape()) : Tensor::zeros(dx.device(), x.shape());
    if (slot.grad.defined()) dx.device().stream().copy(own.range(), slot.grad.range());
    slot = {own, true};
  }
  op::accumulate(slot.grad.slice(dim, start, dx.dim(dim)), dx);
}

void Grads::move(const Tensor& from, const Tensor& to) {
  const auto it = map_.find(from.id());
  if (it == map_.end()) return;
  const Tensor dx = it->second.grad;
  map_.erase(it);
  add(to, dx);
}

Tape* Tape::wants(std::initializer_list<const Tensor*> inputs) {
  Tape* t = current();
  if (!t) return nullptr;
  return std::any_of(inputs.begin(), inputs.end(), [&](const Tensor* x) { return t->active(*x); }) ? t
                                                                                                   : nullptr;
}

void Tape::push(const char* op, const std::vector<Tensor>& outputs, Backward backward) {
  Node node{op, {}, nullptr, std::move(backward)};
  for (const Tensor& y : outputs) {
    node.outputs.emplace_back(y.id(), y.shape());
    node.device = &y.device();
    active_.insert(y.id());
  }
  nodes_.push_back(std::move(node));
}

void Tape::push_narrow(const Tensor& y, const Tensor& x, int dim, int64_t start) {
  parts_[y.id()] = {x.id(), dim, start};
  push("narrow", {y},
       [x = x.key(), id = y.id(), dim, start](Grads& g) { g.add_slice(x, dim, start, g.of(id)); });
}

Grads Tape::backward(const Tensor& loss, const Tensor& seed) {
  Grads grads;
  backward({{loss, seed}}, grads);
  return grads;
}

void Tape::backward(const std::vector<std::pair<Tensor, Tensor>>& seeds, Grads& grads) {
  const Scope scope = pause();
  grads.tapes_.push_back(this);
  for (const auto& [y, seed] : seeds) {
    if (!active(y)) {
      throw Error(ErrorCode::invalid_argument, "backward of a tensor that depends on nothing watched");
    }
    grads.add(y, seed.defined() ? seed : Tensor::full(y.device(), y.shape(), 1.0f));
  }
  run(grads);
  grads.tapes_.pop_back();
}

void Tape::run(Grads& grads) {
  while (!nodes_.empty()) {
    const Node node = std::move(nodes_.back());
    nodes_.pop_back();
    const bool reached = std::any_of(node.outputs.begin(), node.outputs.end(),
                                     [&](const auto& o) { return grads.has(o.first); });
    if (!reached) continue;
    for (const auto& [id, shape] : node.outputs) {
      if (!grads.has(id)) grads.map_[id] = {Tensor::zeros(*node.device, shape), true};
    }
    node.backward(grads);
    for (const auto& [id, shape] : node.outputs) grads.map_.erase(id);
  }
}

std::vector<Tensor> checkpoint(const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& fn,
                               const std::vector<Tensor>& inputs, const std::vector<Tensor>& parameters) {
  Tape* outer = current();
  const bool needed =
      outer &&
      (std::any_of(inputs.begin(), inputs.end(), [&](const auto& x) { return outer->active(x); }) ||
       std::any_of(parameters.begin(), parameters.end(), [&](const auto& x) { return outer->active(x); }));
  std::vector<Tensor> outputs;
  {
    const Tape::Scope scope = Tape::pause();
    outputs = fn(inputs);
  }
  if (!needed) return outputs;
  std::vector<uint64_t> ids;
  for (const Tensor& y : outputs) ids.push_back(y.id());
  const auto backward = [fn, inputs, parameters, ids](Grads& g) {
    Tape inner;
    std::vector<Tensor> aliases;
    for (const Tensor& x : inputs) {
      aliases.push_back(x.alias());
      if (g.wants(x)) inner.watch(aliases.back());
    }
    for (const Tensor& p : parameters) {
      if (g.wants(p)) inner.watch(p);
    }
    std::vector<Tensor> again;
    {
      const auto scope = inner.record();
      again = fn(aliases);
    }
    std::vector<std::pair<Tensor, Tensor>> seeds;
    for (size_t i = 0; i < again.size(); ++i) {
      if (inner.active(again[i])) seeds.emplace_back(again[i], g.of(ids[i]));
    }
    inner.backward(seeds, g);
    for (size_t i = 0; i < inputs.size(); ++i) g.move(aliases[i], inputs[i]);
  };
  outer->push("checkpoint", outputs, backward);
  return outputs;
}

}  // namespace vkflux
