// A distillation as a resumable run: a distiller that watches an endless sequence of sampling runs, and the
// checkpoint of both.
#pragma once

#include <optional>
#include <string>

#include "train/distill/distiller.h"
#include "train/distill/run_sequence.h"
#include "train/run_loop.h"

namespace vkflux {

class DistillRun final : public Resumable {
 public:
  struct Options {
    bool save_replay = true;  // checkpoints hold the replay samples; without them resuming isn't exact
    std::optional<ReadinessCriteria> criteria;  // in place of a checkpoint's
  };
  /// Puts the students into the bank of the runs' backbone and watches the runs while it lives. What a
  /// checkpoint says about hyper-parameters wins, as memory may have made it smaller, apart from differences
  /// that inputs() accepts.
  DistillRun(Distiller& distiller, RunSequence& runs, Options options);
  ~DistillRun() override;

  void step() override;
  int64_t done() const override { return distiller_.updates_done(); }
  bool finished() const override { return distiller_.finished(); }
  void save(const std::string& path) override;
  void load(const std::string& path) override;
  void add_sink(std::unique_ptr<MetricSink> sink) override { distiller_.add_sink(std::move(sink)); }

 private:
  Distiller& distiller_;
  RunSequence& runs_;
  Options options_;
};

}  // namespace vkflux
