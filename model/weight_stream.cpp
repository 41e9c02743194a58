#include "model/weight_stream.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <utility>

#include "vk/error.h"
#include "vk/stream_limits.h"

namespace vkflux {
namespace {

uint64_t up_to(uint64_t n, uint64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Half of what the system says it can give; none where it doesn't say.
uint64_t spare_host_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string key, unit; file >> key;) {
    uint64_t kilobytes = 0;
    if (key == "MemAvailable:" && file >> kilobytes) return kilobytes * 1024 / 2;
    std::getline(file, unit);
  }
  return 0;
}

}  // namespace

std::shared_ptr<const io::NamedTensors> open_named(const std::string& path, const io::NameTable& table) {
  std::shared_ptr<const io::TensorSource> source = io::open_tensors(path);
  return {new io::NamedTensors(*source, table), [source](const io::NamedTensors* named) { delete named; }};
}

WeightStream::WeightStream(Device& device, std::shared_ptr<const io::NamedTensors> file, WantedType matrices,
                           const StorageRules& rules, std::vector<std::unique_ptr<Part>> parts,
                           const Options& options)
    : device_(device), file_(std::move(file)), parts_(std::move(parts)) {
  for (const auto& part : parts_) {
    ordinal_.push_back(part ? streamed_.size() : SIZE_MAX);
    if (part) streamed_.push_back({part->name, 0, {}, false, 0});
  }
  if (streamed_.empty()) return;
  place(rules, matrices, std::clamp<size_t>(options.slots, 1, streamed_.size()));
  pack(options.host_cache);
  const bool direct =
      std::any_of(streamed_.begin(), streamed_.end(), [](const Streamed& s) { return s.direct; });
  // What the device packs at every use can't be done beside its other work.
  ahead_ = !direct && slots_.size() > 1;
  if (!ahead_) return;
  if (options.upload || !host_reads_memory(device_)) {
    uint64_t most = 0;
    for (const Streamed& s : streamed_) most = std::max(most, s.bytes);
    for (int i = 0; i < 2; ++i) staging_.push_back(device_.pool().allocate_host(most));
    staged_.assign(staging_.size(), 0);
    if (!device_.rehearsing()) uploader_ = std::make_unique<Uploader>(device_);
  }
  if (!device_.rehearsing()) thread_ = std::thread([this] { work(); });
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// Where every parameter lies in its part's slot: one behind another, in as few allocations as the device
// allows.
void WeightStream::place(const StorageRules& rules, WantedType matrices, size_t slots) {
  const uint64_t unit = device_.pool().range_alignment(),
                 most = std::max<uint64_t>(device_.caps().max_allocation / unit * unit, unit);
  struct Spot {
    size_t chunk;
    uint64_t offset;
  };
  std::vector<std::vector<uint64_t>> sizes(slots);  // of the slots' chunks
  std::vector<std::vector<Spot>> spots(streamed_.size());
  size_t at_part = 0;
  for (const auto& part : parts_) {
    if (!part) continue;
    Streamed& s = streamed_[at_part];
    s.slot = at_part % slots;
    std::vector<uint64_t> used{0};
    for (const Param& p : part->params) {
      Place place;
      place.param = p;
      place.dtype = storage_of(rules, p, matrices, file_->dtype(p.name));
      place.bytes = stored_bytes(place.dtype, p.shape);
      place.stored = reads_directly(*file_, p, place.dtype);
      // Vector loads may round a range up by 16 bytes.
      const uint64_t size = up_to(place.bytes + 16, unit);
      if (used.back() > 0 && used.back() + size > most) used.push_back(0);
      spots[at_part].push_back({used.size() - 1, used.back()});
      used.back() += size;
      s.bytes += place.bytes;
      s.places.push_back(std::move(place));
    }
    std::vector<uint64_t>& size = sizes[s.slot];
    size.resize(std::max(size.size(), used.size()));
    for (size_t i = 0; i < used.size(); ++i) size[i] = std::max(size[i], used[i]);
    ++at_part;
  }
  slots_.resize(slots);
  for (size_t i = 0; i < slots; ++i) {
    for (const uint64_t bytes : sizes[i])
      slots_[i].chunks.push_back(device_.pool().allocate(bytes, MemoryClass::weights));
  }
  for (size_t i = 0; i < streamed_.size(); ++i) {
    Streamed& s = streamed_[i];
    for (size_t j = 0; j < s.places.size(); ++j) {
      Place& p = s.places[j];
      p.memory = device_.pool().part(slots_[s.slot].chunks[spots[i][j].chunk], spots[i][j].offset, p.bytes);
      *p.param.tensor = Tensor::over(device_, {p.memory, 0, p.bytes}, p.param.shape, p.dtype);
    }
  }
}

// What the device has to pack is packed now and kept, as far as the host's memory goes.
void WeightStream::pack(uint64_t host_cache) {
  const ErrorContext context(file_->path());
  for (Streamed& s : streamed_) {
    for (Place& p : s.places) {
      if (p.stored) continue;
      if (p.bytes > host_cache) {
        s.direct = true;
        continue;
      }
      const ErrorContext tensor(p.param.name);
      host_cache -= p.bytes;
      const Tensor t = load_tensor(*file_, p.param, device_, p.dtype, MemoryClass::scratch);
      if (!device_.rehearsing()) {
        p.packed.resize(p.bytes);
        device_.stream().download(p.packed, t.range());
      }
      p.kept = true;
    }
  }
}

uint64_t WeightStream::slot_bytes() const {
  uint64_t sum = 0;
  for (const Slot& s : slots_) {
    for (const BufferPtr& b : s.chunks) sum += b->size();
  }
  return sum;
}

void WeightStream::read(const Place& p, uint64_t at, std::span<std::byte> out) const {
  const ErrorContext context(file_->path());
  const ErrorContext tensor(p.param.name);
  if (p.kept) {
    std::copy_n(p.packed.begin() + static_cast<ptrdiff_t>(at), out.size(), out.begin());
  } else {
    read_weight(*file_, p.param, p.dtype, at, out);
  }
}

void WeightStream::acquire(size_t i) {
  release();
  if (i < ordinal_.size() && ordinal_[i] != SIZE_MAX) acquire_streamed(ordinal_[i]);
}

// The part that ran last is done when the device has done what is recorded so far.
void WeightStream::release() {
  if (busy_ == SIZE_MAX) return;
  const uint64_t value = device_.stream().submit();
  {
    const std::lock_guard lock(mutex_);
    slots_[busy_].last_use = value;
    slots_[busy_].state = State::idle;
  }
  changed_.notify_all();
  busy_ = SIZE_MAX;
}

void WeightStream::acquire_streamed(size_t ordinal) {
  Streamed& part = streamed_[ordinal];
  Slot& slot = slots_[part.slot];
  if (!ahead_ || device_.rehearsing()) {
    if (!ahead_ && slot.holds != ordinal) fill_here(part);
    slot.holds = ordinal;
    busy_ = part.slot;
    return;
  }
  std::unique_lock lock(mutex_);
  const auto coming = [&] {
    return slot.holds == ordinal && (slot.state == State::ready || slot.state == State::filling);
  };
  if (!coming()) {  // another order than the last time: what was brought ahead may be written over
    changed_.wait(lock, [&] {
      return failure_ || std::none_of(slots_.begin(), slots_.end(),
                                      [](const Slot& s) { return s.state == State::filling; });
    });
    if (!coming()) {
      next_ = ordinal;
      for (Slot& s : slots_) {
        if (s.state == State::ready) s.state = State::idle;
      }
    }
  }
  changed_.notify_all();
  changed_.wait(lock, [&] { return failure_ || (slot.holds == ordinal && slot.state == State::ready); });
  if (failure_) std::rethrow_exception(failure_);
  slot.state = State::busy;
  busy_ = part.slot;
  const uint64_t arrives = slot.arrives;
  lock.unlock();
  if (uploader_) device_.stream().begin_after(uploader_->timeline(), arrives);
}

// In the stream's order, by the calling thread.
void WeightStream::fill_here(Streamed& part) {
  const ErrorContext context(part.name);
  for (Place& p : part.places) {
    if (!p.stored && !p.kept) {
      const Tensor t = load_tensor(*file_, p.param, device_, p.dtype, MemoryClass::scratch);
      device_.stream().copy({p.memory, 0, p.bytes}, t.range());
    } else {
      device_.stream().upload({p.memory, 0, p.bytes},
                              [&](uint64_t at, std::span<std::byte> piece) { read(p, at, piece); });
    }
  }
  streamed_bytes_ += part.bytes;
}

void WeightStream::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Slot* slot = nullptr;
    changed_.wait(lock, [&] {
      slot = &slots_[streamed_[next_].slot];
      return stop_ || slot->state == State::idle || slot->state == State::empty;
    });
    if (stop_) return;
    Streamed& part = streamed_[next_];
    if (slot->holds != next_ || slot->state == State::empty) {
      slot->holds = next_;
      slot->state = State::filling;
      lock.unlock();
      try {
        fill(part, *slot);
      } catch (...) {
        lock.lock();
        failure_ = std::current_exception();
        slot->holds = SIZE_MAX;
        changed_.notify_all();
        return;
      }
      lock.lock();
    }
    slot->state = State::ready;
    next_ = (next_ + 1) % streamed_.size();
    changed_.notify_all();
  }
}

// By the thread: where the host reaches the device's memory straight into it, once its last user is done;
// else through staging memory and the uploader.
void WeightStream::fill(Streamed& part, Slot& slot) {
  if (!uploader_) {
    device_.stream().wait_elsewhere(slot.last_use);
    for (const Place& p : part.places) read(p, 0, {static_cast<std::byte*>(p.memory->mapped()), p.bytes});
  } else {
    const size_t s = next_staging_++ % staging_.size();
    uploader_->wait(staged_[s]);
    std::vector<Uploader::Copy> copies;
    uint64_t at = 0;
    for (const Place& p : part.places) {
      read(p, 0, {static_cast<std::byte*>(staging_[s]->mapped()) + at, p.bytes});
      copies.push_back({p.memory, staging_[s], at, p.bytes});
      at += p.bytes;
    }
    slot.arrives = staged_[s] = uploader_->copy(copies, slot.last_use);
  }
  streamed_bytes_ += part.bytes;
}

std::shared_ptr<WeightStream> load_streamed(const std::vector<Param>& params,
                                            const std::vector<std::string>& parts,
                                            const std::vector<bool>& streams,
                                            std::shared_ptr<const io::NamedTensors> file, Device& device,
                                            WantedType matrices, const StorageRules& rules) {
  check(params, *file);
  std::vector<std::unique_ptr<WeightStream::Part>> streamed(parts.size());
  std::map<std::string, size_t> by_prefix;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i >= streams.size() || !streams[i]) continue;
    by_prefix.emplace(parts[i] + ".", i);
    streamed[i] = std::make_unique<WeightStream::Part>();
    streamed[i]->name = parts[i];
  }
  std::vector<Param> here;
  for (const Param& p : params) {
    // The last prefix that isn't behind the name is the only one that can begin it.
    auto it = by_prefix.upper_bound(p.name);
    // Vectors are small, and what changes norms does it in place.
    const bool belongs = p.shape.rank() > 1 && it != by_prefix.begin() && p.name.starts_with((--it)->first);
    (belongs ? streamed[it->second]->params : here).push_back(p);
  }
  load_checked(here, *file, device, matrices, rules);
  if (by_prefix.empty()) return nullptr;
  WeightStream::Options options;
  options.host_cache = spare_host_memory();
  return std::make_shared<WeightStream>(device, std::move(file), matrices, rules, std::move(streamed),
                                        options);
}

}  // namespace vkflux
