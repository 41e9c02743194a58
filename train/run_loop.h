// The loop of everything that is trained: resume, steps, checkpoints, interruptions. The commands give it
// what they train and what they show.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/io/json.h"
#include "train/metrics.h"
#include "train/run_folder.h"
#include "train/run_inputs.h"

namespace vkflux {

/// Something that is trained step by step, with a checkpoint from which it goes on with the same bits.
class Resumable {
 public:
  virtual ~Resumable() = default;
  virtual void step() = 0;
  /// Steps, updates or iterations; one step() may make several.
  virtual int64_t done() const = 0;
  virtual bool finished() const = 0;
  /// The whole state in one file, written atomically, with inputs(); load() refuses a file made from or with
  /// others (RunInputs::check) and then changes nothing. Error invalid_argument of save(): training diverged;
  /// the file of before stays.
  virtual void save(const std::string& path) = 0;
  virtual void load(const std::string& path) = 0;
  virtual void add_sink(std::unique_ptr<MetricSink> sink) = 0;

  /// What it is made from and with. A trainer knows its settings and its data; whoever chose a model, an
  /// autoencoder or other files adds those before the first load().
  RunInputs& inputs() { return inputs_; }

 protected:
  RunInputs inputs_;
};

struct RunLoopOptions {
  RunFolder folder;
  bool fresh = false;                        // start over: what an earlier run wrote here is removed
  int64_t save_every = 100;                  // between checkpoints, in units of done()
  int64_t stop_after = 0;                    // stop there with a checkpoint, as if interrupted; 0: never
  const char* unit = "steps";                // what done() counts, for people
  io::Json parameters = io::Json::object();  // what was asked for: flattened into params.json
  std::vector<std::string> results = {};     // what the command writes here: see RunFolder::clear
};

/// True when a multiple of `every` lies in (before, after]; never with 0.
bool checkpoint_due(int64_t before, int64_t after, int64_t every);

/// Takes up the folder's checkpoint if there is one, writes params.json, opens metrics.jsonl and events/, and
/// makes steps with a checkpoint when one is due, at a stop, and at the end. started() is called once before
/// the first step, after_step() after every one. False: stopped before the end, by stop_after, because
/// interrupted() said so, or because a step or after_step() threw Error cancelled: such a step must have
/// changed nothing. The caller holds the folder's RunLock.
bool run_to_end(Resumable& work, const RunLoopOptions& options, const std::function<bool()>& interrupted,
                const std::function<void()>& started, const std::function<void()>& after_step);

}  // namespace vkflux
