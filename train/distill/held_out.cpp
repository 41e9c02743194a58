#include "train/distill/held_out.h"

#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "model/attention/attention.h"
#include "model/flux/transformer.h"

namespace vkflux {
namespace {

class Beside final : public AttentionTap {
 public:
  Beside(AttentionBank& bank, const Students& students) : bank_(bank), students_(students) {
    bank_.add_tap(this);
  }
  ~Beside() override { bank_.remove_tap(this); }
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;

  void observe(const AttentionCall& call, const Tensor& out) override {
    const auto it = students_.layers.find(call.layer - static_cast<int>(students_.model.double_blocks));
    if (it == students_.layers.end()) return;
    const Tensor answer = HkrAttention(it->second).forward(call);
    pending_.emplace_back(it->first, op::mean_all(op::cosine_similarity(answer, out)).view({1}));
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
  std::map<int, double> means() const {
    std::map<int, double> out;
    for (const auto& [layer, s] : sums_) out[layer] = s.first / static_cast<double>(s.second);
    return out;
  }

 private:
  AttentionBank& bank_;
  const Students& students_;
  std::vector<std::pair<int, Tensor>> pending_;
  std::map<int, std::pair<double, int64_t>> sums_;
};

}  // namespace

std::map<int, double> student_distances(SamplingRuns& runs, const Students& students, int64_t count) {
  AttentionBank& bank = runs.transformer().attention();
  bank.route({});
  Beside beside(bank, students);
  const int64_t end = runs.run() + count;
  while (runs.run() < end) {
    runs.step();
    beside.collect();
  }
  return beside.means();
}

}  // namespace vkflux
