#include "model/convert_lora.h"

#include <algorithm>
#include <mutex>

namespace vkflux {
namespace {

class MergedWeights final : public WeightSource {
 public:
  MergedWeights(const WeightSource& base, const LoraSet& loras, std::string part)
      : base_(base), loras_(loras), part_(std::move(part)) {}

  io::FileDType stored(const Param& p) const override { return base_.stored(p); }
  // Threads ask for pieces of one parameter after the other.
  void values(const Param& p, uint64_t first, std::span<float> out) const override {
    if (!loras_.changes(part_, p.name)) return base_.values(p, first, out);
    const std::lock_guard lock(mutex_);
    if (name_ != p.name) {
      name_.clear();
      values_.resize(static_cast<size_t>(p.shape.numel()));
      base_.values(p, 0, values_);
      loras_.merge(part_, p.name, values_);
      name_ = p.name;
    }
    std::copy_n(values_.begin() + static_cast<ptrdiff_t>(first), out.size(), out.begin());
  }
  bool has_blocks(const Param& p, io::FileDType type) const override {
    return !loras_.changes(part_, p.name) && base_.has_blocks(p, type);
  }
  void blocks(const Param& p, io::FileDType type, int64_t row, std::span<std::byte> out) const override {
    base_.blocks(p, type, row, out);
  }

 private:
  const WeightSource& base_;
  const LoraSet& loras_;
  std::string part_;
  mutable std::mutex mutex_;
  mutable std::string name_;  // of the parameter whose values are held
  mutable std::vector<float> values_;
};

}  // namespace

std::unique_ptr<WeightSource> merged_weights(const WeightSource& base, const LoraSet& loras,
                                             const std::string& part) {
  return std::make_unique<MergedWeights>(base, loras, part);
}

}  // namespace vkflux
