// Reverse-mode autograd, first order.
//
//   Tape tape;
//   tape.watch(w);
//   Tensor loss;
//   { auto scope = tape.record();  loss = op::mse(op::linear(x, w), y); }
//   Grads grads = tape.backward(loss);
//   Tensor dw = grads.of(w);
//
// Closures hold exactly what backward reads; a node and the gradients of its outputs are released as soon as
// it has run.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

class Tape;

/// What a kernel does with the memory of a gradient.
enum class Store { overwrite, add };
/// Where a kernel can store a gradient and add to it: in bindable memory, or also in a matrix of dense rows,
/// or a vector, that needn't be bindable (Tensor::covering() is).
enum class AddsTo { bindable, dense_rows };

class Grads {
 public:
  /// The gradient with respect to a tensor; zeros when nothing flowed into it (for an output of the running
  /// node or a watched tensor), else undefined.
  Tensor of(uint64_t id) const;
  Tensor of(const Tensor& x) const { return of(x.id()); }
  bool has(uint64_t id) const { return map_.count(id) != 0; }
  /// False when nobody needs the gradient with respect to x: backward code skips that work.
  bool wants(const Tensor& x) const;
  /// Accumulates dx (the shape of x, f32, any strides; what of() returns is contiguous). x may be a key().
  void add(const Tensor& x, const Tensor& dx);
  /// Accumulates dx into [start, start + dx.dim(dim)) of dimension `dim` of x's gradient: many slices of one
  /// tensor share one gradient buffer.
  void add_slice(const Tensor& x, int dim, int64_t start, const Tensor& dx);
  /// Accumulates what write(memory) puts into every element of `memory` (the shape of x, bindable): the place
  /// where x's gradient is collected when nothing is there yet, else new memory, which is added afterwards.
  /// Not called when nobody wants the gradient. x may be a key().
  template <class Write>
  void write(const Tensor& x, Write&& write) {
    if (!wants(x)) return;
    const Place place = place_for(x, {});
    write(place.memory);
    settle(x, place);
  }
  /// The same by a kernel that can also add to what is there, in memory as `adds_to` says:
  /// write(memory, store) does what `store` asks for.
  template <class Write>
  void write_or_add(const Tensor& x, AddsTo adds_to, Write&& write) {
    if (!wants(x)) return;
    const Place place = place_for(x, adds_to);
    write(place.memory, place.store);
    settle(x, place);
  }
  /// Adds the gradient of `from` to that of `to` and forgets it.
  void move(const Tensor& from, const Tensor& to);
  /// Gradients of x are added into `destination` (the shape of x, contiguous), which the caller has zeroed;
  /// empty: nothing has been added to it since.
  void collect(const Tensor& x, const Tensor& destination, bool empty = true);

 private:
  friend class Tape;
  struct Slot {
    Tensor grad;
    bool ours = false;  // made here, so that adding in place changes nobody else's tensor
  };
  struct Destination {
    Tensor grad;
    bool empty;
  };
  struct Place {
    Tensor memory;
    Store store = Store::overwrite;
    bool collects = false;  // what is written there is collected; else it is still to be added
  };
  /// adds_to: of a kernel that can add; none: it overwrites.
  Place place_for(const Tensor& x, std::optional<AddsTo> adds_to);
  void settle(const Tensor& x, const Place& place);
  /// x, or the tensor that x is a narrow() of, is collected: x's part of that.
  Tensor collected(const Tensor& x, Destination** whole);
  std::unordered_map<uint64_t, Slot> map_;
  std::unordered_map<uint64_t, Destination> destinations_;
  std::vector<const Tape*> tapes_;
};

class Tape {
 public:
  using Backward = std::function<void(Grads&)>;

  /// Marks a leaf: its gradient will be computed.
  void watch(const Tensor& x) { active_.insert(x.id()); }

  class Scope {
   public:
    explicit Scope(Tape* tape);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Tape* previous_;
  };
  /// While the scope lives, ops on this thread record here.
  Scope record() { return Scope(this); }
  /// While the scope lives nothing is recorded.
  static Scope pause() { return Scope(nullptr); }

  /// The recording tape when any input is upstream of a leaf, else null. Undefined tensors are allowed.
  static Tape* wants(std::initializer_list<const Tensor*> inputs);
  /// A scope of record() is open on this thread.
  static bool recording();
  bool active(const Tensor& x) const { return x.id() != 0 && active_.count(x.id()) != 0; }

  /// Adds a node: `backward` reads gradients of the outputs and adds to those of the inputs. It must not
  /// capture the outputs' handles unless it reads their values (that would keep their memory).
  void push(const char* op, const std::vector<Tensor>& outputs, Backward backward);
  /// The same for y = x[start .. start + length) of dimension `dim`.
  void push_narrow(const Tensor& y, const Tensor& x, int dim, int64_t start);

  /// Runs the nodes backwards and forgets them. loss: any shape; seed: its gradient (ones when undefined).
  Grads backward(const Tensor& loss, const Tensor& seed = {});
  /// The same for several outputs at once, into an existing Grads (which accumulates).
  void backward(const std::vector<std::pair<Tensor, Tensor>>& seeds, Grads& into);
  size_t size() const { return nodes_.size(); }

 private:
  friend class Grads;
  struct Node {
    const char* op;
    std::vector<std::pair<uint64_t, Shape>> outputs;
    Device* device;
    Backward backward;
  };
  struct Part {
    uint64_t whole;
    int dim;
    int64_t start;
  };
  void run(Grads& grads);
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, Part> parts_;
  std::unordered_set<uint64_t> active_;
};

/// Runs fn without a tape and again in backward: saves the memory of everything inside. fn must be a pure
/// function of its inputs and of watched parameters. inputs may include tensors that need no gradient.
std::vector<Tensor> checkpoint(const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& fn,
                               const std::vector<Tensor>& inputs, const std::vector<Tensor>& parameters);

}  // namespace vkflux
