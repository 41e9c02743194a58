// Forward passes of a backbone from recordings: one per (layer, kind of attention) and one for each part
// around the layers, made in the second pass and run again in every later one with the same bits as
// Backbone::forward(). A routed pass picks among them layer by layer.
//
// Memory: the passes' temporary tensors lie in a region of their own, which all recordings share (they run
// one after the other), and so do the residual streams: about what a pass needs anyway, kept until the object
// goes. recorded_bytes() tells.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model/backbone.h"
#include "vk/recording.h"

namespace vkflux {

class Replay {
 public:
  /// The weights must stay where they are while this lives.
  explicit Replay(Backbone& model) : model_(model) {}
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  /// model.forward(in); eager where it can't be recorded (taps, a tape, the profiler, drivers without push
  /// descriptors, too little memory), and for layers whose strategy isn't recordable(). Every pass must be of
  /// the same AttentionRun, or of none.
  Tensor forward(const PassInputs& in);
  /// Device memory that is kept for the recordings.
  uint64_t recorded_bytes() const;
  /// Recordings made so far.
  size_t recordings() const;

 private:
  struct Segment {
    std::unique_ptr<Recording> recording;
    int failures = 0;  // it held host data; a strategy's first call may, the second may not
  };
  Tensor recorded(const PassInputs& in);
  bool possible(const PassInputs& in) const;
  bool current(const PassInputs& in) const;
  void start(const PassInputs& in);
  void feed(const PassInputs& in);
  template <class Work>
  bool record_or_replay(Segment& segment, const Work& work);
  void run_layer(size_t part, int layer);
  void reset();

  Backbone& model_;
  Device* device_ = nullptr;
  uint32_t region_ = 0;
  uint64_t views_generation_ = 0;
  const AttentionRun* attention_ = nullptr;  // whose checks the recordings write
  PassInputs in_;                            // where the recordings read
  std::vector<uint64_t> fed_;  // ids of what was last copied to the inputs, in the order of visit()
  std::unique_ptr<Pass> pass_;
  Tensor output_;
  Segment begin_, finish_;
  std::map<size_t, Segment> around_;  // by part
  std::map<std::pair<int, AttentionKind>, Segment> layers_;
  bool warm_ = false;
  int failures_ = 0;
};

}  // namespace vkflux
