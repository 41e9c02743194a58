// Forward passes of a transformer from recordings: one per (layer, kind of attention), made in the second
// pass and run again in every later one with the same bits as Flux1::forward(). A routed pass picks among
// them layer by layer.
//
// Memory: the passes' temporary tensors lie in a region of their own, which all recordings share (they run
// one after the other), and so do the residual streams: about what a pass needs anyway, kept until the object
// goes. recorded_bytes() tells.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model/flux/transformer.h"
#include "vk/recording.h"

namespace vkflux {

class Flux1Replay {
 public:
  /// The weights must stay where they are while this lives.
  explicit Flux1Replay(Flux1& model) : model_(model) {}
  ~Flux1Replay();
  Flux1Replay(const Flux1Replay&) = delete;
  Flux1Replay& operator=(const Flux1Replay&) = delete;

  /// model.forward(in); eager where it can't be recorded (taps, a tape, the profiler, drivers without push
  /// descriptors, too little memory), and for layers whose strategy isn't recordable().
  Tensor forward(const Flux1Inputs& in);
  /// Device memory that is kept for the recordings.
  uint64_t recorded_bytes() const;
  /// Recordings made so far.
  size_t recordings() const;

 private:
  struct Segment {
    std::unique_ptr<Recording> recording;
    int failures = 0;  // it held host data; a strategy's first call may, the second may not
  };
  Tensor recorded(const Flux1Inputs& in);
  bool possible(const Flux1Inputs& in) const;
  bool current(const Flux1Inputs& in) const;
  void start(const Flux1Inputs& in);
  void feed(const Flux1Inputs& in);
  template <class Work>
  bool record_or_replay(Segment& segment, const Work& work);
  void run_layer(int index);
  void reset();

  Flux1& model_;
  Device* device_ = nullptr;
  uint32_t region_ = 0;
  uint64_t bank_version_ = 0, views_generation_ = 0;
  Flux1Inputs in_;                      // where the recordings read
  std::array<uint64_t, 5> constant_{};  // ids of what was last copied to txt, y, guidance, rope, key mask
  std::optional<Flux1::Pass> pass_;
  Tensor velocity_;
  Segment begin_, join_, finish_;
  std::map<std::pair<int, AttentionKind>, Segment> layers_;
  bool warm_ = false;
  int failures_ = 0;
};

}  // namespace vkflux
