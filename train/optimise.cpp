#include "train/optimise.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

std::vector<std::pair<std::string, Shape>> layout_of(const std::vector<Trainable>& parameters) {
  std::vector<std::pair<std::string, Shape>> out;
  for (const Trainable& p : parameters) out.emplace_back(p.name, p.tensor->shape());
  return out;
}

/// One byte for 64 elements of the arena: 1 in matrices.
Tensor matrices_of(Device& device, const Arena& arena) {
  std::vector<uint8_t> mask(static_cast<size_t>(arena.flat().numel() / 64), 0);
  for (const Tensor& slot : arena.tensors()) {
    if (slot.rank() < 2) continue;
    const auto first = static_cast<size_t>(slot.offset() / 64),
               count = static_cast<size_t>((slot.numel() + 63) / 64);
    std::fill_n(mask.begin() + static_cast<ptrdiff_t>(first), count, uint8_t{1});
  }
  return Tensor::from(device, std::span<const uint8_t>(mask), {static_cast<int64_t>(mask.size())});
}

}  // namespace

std::vector<Trainable> trainables(const std::vector<Param>& params) {
  std::vector<Trainable> out;
  for (const Param& p : params) out.push_back({p.name, p.tensor});
  return out;
}

uint32_t checksum(const std::vector<Trainable>& parameters) {
  uLong sum = 0;
  for (const Trainable& p : parameters) {
    const std::vector<uint8_t> bytes = p.tensor->to_host_bytes();
    sum = crc32_z(sum, bytes.data(), bytes.size());
  }
  return static_cast<uint32_t>(sum);
}

Optimiser::Optimiser(Device& device, std::vector<Trainable> parameters, const OptimiserLayout& layout)
    : parameters_(std::move(parameters)),
      param_(device, layout_of(parameters_)),
      grad_(device, layout_of(parameters_)),
      m_(device, layout_of(parameters_)),
      v_(device, layout_of(parameters_)),
      starts_{0} {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const size_t group = layout.groups.empty() ? 0 : layout.groups.at(i);
    if (group + 1 < starts_.size())
      throw Error(ErrorCode::internal, fmt::format("{} is out of its optimiser group", parameters_[i].name));
    while (starts_.size() < group + 1) starts_.push_back(param_[i].offset());
    op::accumulate(param_[i], *parameters_[i].tensor);
    *parameters_[i].tensor = param_[i];
  }
  starts_.push_back(param_.flat().numel());
  steps_.assign(starts_.size() - 1, 0);
  if (layout.decay_matrices_only) {
    if (steps_.size() > 1) throw Error(ErrorCode::internal, "a decay mask goes with a single group");
    decay_mask_ = matrices_of(device, param_);
  }
  if (!layout.averages) return;
  average_ = std::make_unique<Arena>(device, layout_of(parameters_));
  op::accumulate(average_->flat(), param_.flat());
}

void Optimiser::apply(const AdamWOptions& options, const Tensor& scale, size_t group) {
  const auto part = [&](const Arena& arena) {
    return arena.flat().slice(0, starts_[group], starts_[group + 1] - starts_[group]);
  };
  adamw(part(param_), part(grad_), part(m_), part(v_), options, ++steps_[group], scale, decay_mask_);
}

void Optimiser::update_average(float decay) {
  if (average_) ema_update(average_->flat(), param_.flat(), decay);
}

void Optimiser::with_average(const std::function<void()>& fn) const {
  struct Swap {
    const std::vector<Trainable>& list;
    std::vector<Tensor> saved;
    ~Swap() {
      for (size_t i = 0; i < saved.size(); ++i) *list[i].tensor = saved[i];
    }
  } swap{parameters_, {}};
  for (size_t i = 0; average_ && i < parameters_.size(); ++i) {
    swap.saved.push_back(*parameters_[i].tensor);
    *parameters_[i].tensor = (*average_)[i];
  }
  fn();
}

void Optimiser::restart() {
  m_.flat().fill_zero();
  v_.flat().fill_zero();
  std::fill(steps_.begin(), steps_.end(), 0);
}

Tensor gradients(std::initializer_list<Optimiser*> optimisers, int64_t micro_batches,
                 const std::function<Seeded(int64_t micro)>& forward) {
  const Optimiser& leading = **optimisers.begin();
  Profiler& profiler = leading.grad().flat().device().profiler();
  for (const Optimiser* o : optimisers) o->grad().flat().fill_zero();
  for (int64_t micro = 0; micro < micro_batches; ++micro) {
    Tape tape;
    Grads grads;
    for (const Optimiser* o : optimisers) {
      for (size_t i = 0; i < o->param().size(); ++i) {
        tape.watch(o->param()[i]);
        grads.collect(o->param()[i], o->grad()[i], micro == 0);
      }
    }
    Seeded s;
    {
      const ProfileScope part(profiler, "forward");
      const auto scope = tape.record();
      s = forward(micro);
    }
    const ProfileScope part(profiler, "backward");
    tape.backward({{s.value, s.seed}}, grads);
  }
  // Here, and nowhere else, the gradients are complete and not applied yet. An all-reduce over several
  // devices goes here: one line, o->grad().flat() of every optimiser.
  const ProfileScope part(profiler, "optimiser");
  const auto untaped = Tape::pause();
  return global_norm(leading.grad().flat());
}

Tensor gradient_scale(const Tensor& norm, double clip, const Tensor& loss) {
  return clip_scale(norm, clip > 0 ? static_cast<float>(clip) : std::numeric_limits<float>::max(), loss);
}

}  // namespace vkflux
