// Weights of parts that aren't all on the device at once: they take turns in a few slots of device memory,
// in the order in which the parts run, and are brought there ahead of their use. The parts' tensors lie in
// the slots for good, so recordings of the work stay valid, and the bytes are those that load() would bring,
// so the results are, too.
//
//   auto stream = load_streamed(...);        // the other parameters are loaded as by load()
//   for each part: stream->acquire(part);  work(part);
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model/load.h"
#include "vk/uploader.h"

namespace vkflux {

/// A file's tensors under our names, kept open.
std::shared_ptr<const io::NamedTensors> open_named(const std::string& path, const io::NameTable& table);

class WeightStream {
 public:
  struct Part {
    std::string name;
    std::vector<Param> params;
  };
  struct Options {
    size_t slots = 2;
    /// Host memory for what the device has to pack first: it is packed once instead of at every use.
    uint64_t host_cache = 0;
    /// By the uploader, also where the host reaches the slots itself.
    bool upload = false;
  };
  /// parts[i]: null for one whose weights are on the device. Gives the parameters their tensors.
  WeightStream(Device& device, std::shared_ptr<const io::NamedTensors> file, WantedType matrices,
               const StorageRules& rules, std::vector<std::unique_ptr<Part>> parts, const Options& options);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  /// Part `i` is the next to run: its weights are there when this returns, for work that is recorded until
  /// the next call. Errors are those of reading the file.
  void acquire(size_t i);

  /// Bytes that were brought to the device so far.
  uint64_t streamed_bytes() const { return streamed_bytes_; }
  uint64_t slot_bytes() const;

 private:
  struct Place {  // of a parameter
    Param param;
    DType dtype = DType::f32;
    BufferPtr memory;
    uint64_t bytes = 0;
    bool stored = true;             // read_weight() gives it
    std::vector<std::byte> packed;  // else: here, when it is kept
    bool kept = false;
  };
  struct Streamed {
    std::string name;
    size_t slot = 0;
    std::vector<Place> places;
    bool direct = false;  // the device packs some of it at every use
    uint64_t bytes = 0;
  };
  enum class State { empty, filling, ready, busy, idle };
  struct Slot {
    std::vector<BufferPtr> chunks;
    State state = State::empty;
    size_t holds = SIZE_MAX;  // ordinal of the part whose weights are, or will be, there
    uint64_t last_use = 0;    // of the stream's timeline
    uint64_t arrives = 0;     // of the uploader's
  };

  void place(const StorageRules& rules, WantedType matrices, size_t slots);
  void pack(uint64_t host_cache);
  void release();
  void fill_here(Streamed& part);
  void work();
  void fill(Streamed& part, Slot& slot);
  void read(const Place& place, uint64_t at, std::span<std::byte> out) const;
  void acquire_streamed(size_t ordinal);

  Device& device_;
  std::shared_ptr<const io::NamedTensors> file_;
  std::vector<std::unique_ptr<Part>> parts_;
  std::vector<size_t> ordinal_;  // of each part among the streamed ones
  std::vector<Streamed> streamed_;
  std::vector<Slot> slots_;
  size_t busy_ = SIZE_MAX;  // slot in use
  std::atomic<uint64_t> streamed_bytes_{0};

  // The thread that fills slots ahead of use.
  bool ahead_ = false;
  std::unique_ptr<Uploader> uploader_;
  std::vector<BufferPtr> staging_;
  std::vector<uint64_t> staged_;  // when each was last copied from
  size_t next_staging_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;  // ordinal to be filled next
  bool stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

/// As load(); the parameters of the parts whose place in `streams` is true (prefixes "name.") are streamed.
/// Null when there is none.
std::shared_ptr<WeightStream> load_streamed(const std::vector<Param>& params,
                                            const std::vector<std::string>& parts,
                                            const std::vector<bool>& streams,
                                            std::shared_ptr<const io::NamedTensors> file, Device& device,
                                            WantedType matrices, const StorageRules& rules);

}  // namespace vkflux
