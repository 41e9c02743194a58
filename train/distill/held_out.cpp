#include "train/distill/held_out.h"

#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

class Beside final : public AttentionTap {
 public:
  explicit Beside(const Students& students) : students_(students) {}
  void observe(const AttentionCall& call, const Served&, const Tensor& out) override {
    const std::string& layer = students_.model.layers[static_cast<size_t>(call.layer)].name;
    const auto it = students_.layers.find(layer);
    if (it == students_.layers.end()) return;
    const Tensor answer = HkrAttention(it->second, students_.max_safe_loss).forward(call);
    pending_.emplace_back(layer, op::mean_all(op::cosine_similarity(answer, out)).view({1}));
  }
  void collect() {
    if (pending_.empty()) return;
    std::vector<Tensor> values;
    for (const auto& [layer, similarity] : pending_) values.push_back(similarity);
    const std::vector<float> host = op::concat(values, 0).to_host();
    for (size_t i = 0; i < host.size(); ++i) {
      auto& [sum, count] = sums_[pending_[i].first];
      sum += 1 - static_cast<double>(host[i]);
      ++count;
    }
    pending_.clear();
  }
  ByLayer<double> means() const {
    ByLayer<double> out;
    for (const auto& [layer, s] : sums_) out[layer] = s.first / static_cast<double>(s.second);
    return out;
  }

 private:
  const Students& students_;
  std::vector<std::pair<std::string, Tensor>> pending_;
  ByLayer<std::pair<double, int64_t>> sums_;
};

}  // namespace

ByLayer<double> student_distances(RunSequence& runs, const Students& students, int64_t count) {
  Beside beside(students);
  runs.set_tap(&beside);
  const int64_t end = runs.run() + count;
  while (runs.run() < end) {
    check_interrupted("the hold-out");
    runs.step();
    beside.collect();
  }
  runs.set_tap(nullptr);
  return beside.means();
}

}  // namespace vkflux
