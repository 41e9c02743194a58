// Online distillation: while a transformer samples, full attention's answers train the students of its
// layers. The distiller watches the runs as a tap; students that are ready may already answer, like those of
// any routed run.
//
//   Distiller distiller(device, backbone.layout(), options);
//   distiller.attach(backbone.attention());
//   SamplingRun run(backbone, ..., {.taps = {&distiller}});
//   for (int64_t step = 0; !distiller.finished(); ++step) { run.step(distiller.begin_step(step,
//   run.level())); distiller.end_step(); }
//
// Between begin_step() and end_step() nothing waits for the device but memory: samples and the numbers of
// updates come to the host when the step ends.
//
// Every random choice is a function of (seed, counters), so a state that is saved and loaded between two
// steps goes on with the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/attention/bank.h"
#include "model/attention/hkr/students.h"
#include "train/distill/distill_metrics.h"
#include "train/distill/memory_estimate.h"
#include "train/distill/replay.h"
#include "train/distill/run_ema.h"
#include "train/distill/settings.h"
#include "train/distill/student_trainer.h"
#include "train/metrics.h"

namespace vkflux {

/// Which layers a step trains: any, or those with the fewest updates so far (ties by chance). The number is
/// drawn between min_swap_layers and max_swap_layers either way.
enum class LayerSchedule { random, round_robin };

struct DistillOptions {
  DistillSettings settings;
  int64_t feature_hidden = 0, feature_layers = 3;  // of the feature networks; see HkrConfig
  LayerSchedule schedule = LayerSchedule::round_robin;
  uint64_t seed = 0;
};

class Distiller : public AttentionTap {
 public:
  /// Makes students with fresh weights for every replaceable layer in the range. Error invalid_argument when
  /// the range or the network's shape can't be.
  Distiller(Device& device, const BackboneLayout& model, const DistillOptions& options);
  ~Distiller() override;
  Distiller(const Distiller&) = delete;
  Distiller& operator=(const Distiller&) = delete;

  /// Puts the students into the bank, so that ready ones can serve runs that begin from now on, until
  /// detach() or the end, which put back what the bank had; the bank must live that long.
  void attach(AttentionBank& bank);
  void detach();
  /// Chooses the layers that are trained in this step, at this noise level; both passes of true guidance
  /// share them. The step's plan comes back.
  RoutePlan begin_step(int64_t step, float sigma);
  /// Takes in what the step's updates gave: metrics, readiness, and samples for later steps.
  void end_step();

  /// All updates are done, or training gave up for lack of memory.
  bool finished() const { return !training(); }
  int64_t updates_done() const { return done_; }
  /// Another total of updates; those done stay.
  void set_total_updates(int64_t total);
  const DistillOptions& options() const { return options_; }
  Students& students() { return students_; }
  const Students& students() const { return students_; }
  const DistillMetrics& metrics() const { return metrics_; }
  const std::set<std::string, LayerOrder>& swapped() const { return swapped_; }
  DistillTotals totals() const;

  void add_sink(std::unique_ptr<MetricSink> sink) { sinks_.push_back(std::move(sink)); }
  /// Lines for people: snapshots, changes of readiness, flushes, what was given up for memory.
  void on_message(std::function<void(const std::string&)> fn) { message_ = std::move(fn); }
  /// The same criteria for every layer, in place of those that were stored with it.
  void reset_criteria(const ReadinessCriteria& criteria);
  void set_learning_rate(double rate);
  /// Folds what is pending into the averages: before students are handed out at the end.
  void flush();

  /// Starts from these students (of the same model and network) with fresh optimisers.
  void adopt(const Students& students);

  /// Tensors and JSON of the complete state; load() refuses another model or network (the message names both
  /// values), changes nothing when it fails, and otherwise goes on exactly where save() was. What the file
  /// says about hyper-parameters wins, apart from those named in `mine`; every difference is warned about.
  void save(std::vector<io::TensorData>& tensors, std::map<std::string, std::string>& metadata,
            bool with_replay) const;
  void load(const std::string& path, const std::set<std::string>& mine = {});
  /// The students with everything that a file for inference says about them.
  Students described() const;

  bool wants_full(const AttentionCall& call) override;
  void taught(const AttentionCall& call, const Tensor& full) override;

 protected:
  /// One update; tests make it fail.
  virtual PendingUpdate update(const std::string& layer, const TeacherSample& sample);

 private:
  struct Layer {
    uint32_t number = 0;  // among the layers that may be replaced: what its random numbers follow
    std::shared_ptr<Student> student;
    std::unique_ptr<StudentTrainer> trainer;
  };
  /// An update whose numbers the host doesn't have yet.
  struct Issued {
    std::string layer;
    HkrContext context;
    PendingUpdate update;
  };
  /// A sample that is still on its way to the replay buffer.
  struct Fresh {
    std::string layer;
    int64_t created;
    std::array<Tensor, 4> tensors;  // as they are stored: q, k, v, teacher
    std::array<Download, 4> downloads;
    uint64_t bytes() const;
  };
  bool training() const { return enabled_ && remaining_ > static_cast<int64_t>(issued_.size()); }
  const std::string& name_of(const AttentionCall& call) const;
  void store(const std::string& layer, const AttentionCall& call, const Tensor& teacher);
  void train(const std::string& layer);
  void count(const Issued& issued, const UpdateResult& result);
  TeacherSample sample(const std::string& layer, size_t index) const;
  void take_samples(uint64_t keep_bytes);
  void degrade_after(const std::string& layer, const std::string& why);
  void apply_sizes();
  void say(const std::string& line) const;
  StudentOptimizer optimizer() const;
  io::Json state() const;
  void check_same(const Students& students) const;
  struct Loaded;
  Loaded read(const std::string& path, const std::set<std::string>& mine) const;

  Device& device_;
  DistillOptions options_;
  Students students_;
  ByLayer<Layer> layers_;
  LossWeights weights_;
  ReplayBuffer replay_;
  RunEma ema_;
  DistillMetrics metrics_;
  AttentionBank* bank_ = nullptr;
  AttentionBank::Strategies before_;  // what the bank had

  bool enabled_ = true;
  int64_t remaining_ = 0, done_ = 0, refused_ = 0;
  std::vector<Issued> issued_;
  std::deque<Fresh> fresh_;
  std::optional<UpdateResult> last_;  // the last that was counted
  std::set<std::string, LayerOrder> swapped_;
  std::vector<std::unique_ptr<MetricSink>> sinks_;
  std::function<void(const std::string&)> message_;
};

/// Updates that bring `layers` layers to readiness with some room: layers x min_updates x a factor for the
/// lag of the moving averages.
int64_t updates_needed(int64_t layers, int64_t min_updates);

/// The sample on the device, widened to f32.
TeacherSample upload(Device& device, const ReplaySample& sample);

}  // namespace vkflux
