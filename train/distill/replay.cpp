#include "train/distill/replay.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kOrigin = "replay samples";

struct Field {
  const char* name;
  HostTensor ReplaySample::*tensor;
};
constexpr std::array<Field, 4> kFields{{{"q_sub", &ReplaySample::q_sub},
                                        {"k_full", &ReplaySample::k_full},
                                        {"v_full", &ReplaySample::v_full},
                                        {"teacher_sub", &ReplaySample::teacher_sub}}};

std::string tensor_name(int64_t created, const char* field) {
  return fmt::format("replay.{}.{}", created, field);
}

template <class T>
void put(io::Json& object, const char* key, const std::optional<T>& value) {
  if (value) object[key] = *value;
}
template <class T>
std::optional<T> take(const io::Json& object, const char* key) {
  if (!object.contains(key)) return {};
  return io::get<T>(object, key, kOrigin);
}

HostTensor read_tensor(const io::SafetensorsFile& file, const std::string& name) {
  const io::TensorInfo& info = file.info(name);
  if (info.dtype != io::FileDType::f16 && info.dtype != io::FileDType::bf16 &&
      info.dtype != io::FileDType::f32) {
    throw Error(ErrorCode::format, fmt::format("{}: {} is {}, F16, BF16 or F32 is expected", file.path(),
                                               name, io::name(info.dtype)));
  }
  return {info.dtype, info.shape, file.read_bytes(name)};
}

// [B, H, n, D] with [B, H, Nk, D], so that a damaged file can't reach a kernel.
void check_shapes(const ReplaySample& s, const std::string& path) {
  const auto& q = s.q_sub.shape;
  const auto& k = s.k_full.shape;
  const bool fits = q.size() == 4 && k.size() == 4 && q[0] == k[0] && q[1] == k[1] && q[3] == k[3] &&
                    s.v_full.shape.size() == 4 && s.v_full.shape[0] == k[0] && s.v_full.shape[1] == k[1] &&
                    s.v_full.shape[2] == k[2] && s.teacher_sub.shape.size() == 4 &&
                    s.teacher_sub.shape[0] == q[0] && s.teacher_sub.shape[1] == q[1] &&
                    s.teacher_sub.shape[2] == q[2] && s.teacher_sub.shape[3] == s.v_full.shape[3] &&
                    (s.key_mask.empty() || static_cast<int64_t>(s.key_mask.size()) == k[0] * k[2]);
  if (!fits) {
    throw Error(ErrorCode::format,
                fmt::format("{}: the tensors of replay sample {} don't fit together", path, s.created));
  }
}

}  // namespace

HostTensor host_tensor(std::span<const float> values, std::vector<int64_t> shape, io::FileDType dtype) {
  int64_t count = 1;
  for (int64_t n : shape) count *= n;
  if (count != static_cast<int64_t>(values.size())) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("host tensor: {} values for a shape of {}", values.size(), count));
  }
  io::TensorData data = io::tensor_data("", std::move(shape), values, dtype);
  return {dtype, std::move(data.shape), std::move(data.bytes)};
}

uint64_t ReplaySample::nbytes() const {
  uint64_t total = key_mask.size();
  for (const Field& f : kFields) total += (this->*f.tensor).nbytes();
  return total;
}

ReplayBuffer::ReplayBuffer(int64_t per_layer, uint64_t max_bytes)
    : per_layer_(std::max<int64_t>(1, per_layer)), max_bytes_(max_bytes) {}

void ReplayBuffer::drop_front(const std::string& layer) {
  const auto found = samples_.find(layer);
  bytes_ -= found->second.front().nbytes();
  found->second.pop_front();
  if (found->second.empty()) samples_.erase(found);
}

bool ReplayBuffer::drop_oldest() {
  std::string oldest;
  int64_t created = std::numeric_limits<int64_t>::max();
  for (const auto& [layer, queue] : samples_) {
    if (queue.front().created >= created) continue;
    created = queue.front().created;
    oldest = layer;
  }
  if (samples_.empty()) return false;
  drop_front(oldest);
  return true;
}

void ReplayBuffer::push(const std::string& layer, ReplaySample sample) {
  const uint64_t incoming = sample.nbytes();
  sample.created = ++created_;
  if (max_bytes_ > 0) {
    const uint64_t room = max_bytes_ > incoming ? max_bytes_ - incoming : 0;
    while (bytes_ > room && drop_oldest()) continue;
  }
  bytes_ += incoming;
  std::deque<ReplaySample>& queue = samples_[layer];
  queue.push_back(std::move(sample));
  while (static_cast<int64_t>(queue.size()) > per_layer_) drop_front(layer);
  if (max_bytes_ > 0) {
    while (bytes_ > max_bytes_ && drop_oldest()) continue;
  }
}

size_t ReplayBuffer::size(const std::string& layer) const {
  const auto found = samples_.find(layer);
  return found == samples_.end() ? 0 : found->second.size();
}

ReplaySample* ReplayBuffer::find(const std::string& layer, int64_t created) {
  const auto found = samples_.find(layer);
  if (found == samples_.end()) return nullptr;
  std::deque<ReplaySample>& queue = found->second;
  const auto it =
      std::find_if(queue.begin(), queue.end(), [&](const ReplaySample& s) { return s.created == created; });
  return it == queue.end() ? nullptr : &*it;
}

const ReplaySample& ReplayBuffer::at(const std::string& layer, size_t index) const {
  if (index >= size(layer)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("replay: sample {} of layer {}, which has {}", index, layer, size(layer)));
  }
  return samples_.at(layer)[index];
}

uint64_t ReplayBuffer::clear(const std::string& layer) {
  const uint64_t before = bytes_;
  while (size(layer) > 0) drop_front(layer);
  return before - bytes_;
}

void ReplayBuffer::clear() {
  samples_.clear();
  bytes_ = 0;
}

std::vector<std::string> ReplayBuffer::layers() const {
  std::vector<std::string> out;
  for (const auto& entry : samples_) out.push_back(entry.first);
  return out;
}

io::Json ReplayBuffer::save(std::vector<io::TensorData>& tensors) const {
  io::Json list = io::Json::array();
  for (const auto& [layer, queue] : samples_) {
    for (const ReplaySample& s : queue) {
      io::Json entry{{"layer", layer}, {"created", s.created}};
      put(entry, "text_token_count", s.context.text);
      put(entry, "conditioning_token_count", s.context.conditioning);
      put(entry, "sigma", s.context.sigma);
      put(entry, "cfg_scale", s.context.cfg);
      list.push_back(std::move(entry));
      for (const Field& f : kFields) {
        const HostTensor& t = s.*f.tensor;
        tensors.push_back({tensor_name(s.created, f.name), t.dtype, t.shape, t.bytes});
      }
      if (s.key_mask.empty()) continue;
      io::TensorData mask{tensor_name(s.created, "key_mask"),
                          io::FileDType::u8,
                          {static_cast<int64_t>(s.key_mask.size())},
                          {}};
      for (uint8_t keep : s.key_mask) mask.bytes.push_back(std::byte{keep});
      tensors.push_back(std::move(mask));
    }
  }
  return {{"created", created_}, {"samples", std::move(list)}};
}

void ReplayBuffer::restore(const io::SafetensorsFile& file, const io::Json& description) {
  ReplayBuffer read(per_layer_, max_bytes_);
  const int64_t created = io::get<int64_t>(description, "created", kOrigin);
  std::map<int64_t, std::pair<std::string, ReplaySample>> in_order;
  for (const io::Json& entry : io::get<std::vector<io::Json>>(description, "samples", kOrigin)) {
    ReplaySample s;
    s.created = io::get<int64_t>(entry, "created", kOrigin);
    if (s.created < 1 || s.created > created || in_order.count(s.created)) {
      throw Error(ErrorCode::format,
                  fmt::format("{}: replay sample {} is out of order", file.path(), s.created));
    }
    for (const Field& f : kFields) s.*f.tensor = read_tensor(file, tensor_name(s.created, f.name));
    const std::string mask = tensor_name(s.created, "key_mask");
    if (file.has(mask)) {
      for (std::byte keep : file.read_bytes(mask)) s.key_mask.push_back(keep != std::byte{0});
    }
    s.context = {take<int64_t>(entry, "conditioning_token_count"), take<int64_t>(entry, "text_token_count"),
                 take<double>(entry, "sigma"), take<double>(entry, "cfg_scale")};
    check_shapes(s, file.path());
    in_order[s.created] = {io::get<std::string>(entry, "layer", kOrigin), std::move(s)};
  }
  for (auto& [number, placed] : in_order) {
    read.created_ = number - 1;  // push() numbers it as before
    read.push(placed.first, std::move(placed.second));
  }
  read.created_ = created;
  *this = std::move(read);
}

std::optional<io::FileDType> replay_dtype(const std::string& word) {
  if (word == "float16") return io::FileDType::f16;
  if (word == "bfloat16") return io::FileDType::bf16;
  if (word == "float32") return io::FileDType::f32;
  return {};
}

}  // namespace vkflux
