#include "tests/harness/gguf_writer.h"

#include <cstdint>
#include <cstring>
#include <set>

namespace vkflux::test {
namespace {

constexpr size_t kAlignment = 32;

template <class T>
std::string raw(T v) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &v, sizeof(T));
  return out;
}
std::string text(const std::string& s) {
  return raw(uint64_t{s.size()}) + s;
}
void pad(std::string& s) {
  s.resize((s.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
}

}  // namespace

std::string gguf_of(const io::TensorSource& from,
                    const std::function<std::string(const std::string&)>& rename) {
  std::string infos, data;
  std::set<std::string> names;
  for (const auto& [name, info] : from.tensors()) {
    if (!names.insert(rename(name)).second) continue;
    infos += text(rename(name)) + raw(static_cast<uint32_t>(info.shape.size()));
    for (auto d = info.shape.rbegin(); d != info.shape.rend(); ++d) infos += raw(static_cast<uint64_t>(*d));
    infos += raw(uint32_t{0}) + raw(uint64_t{data.size()});
    const std::vector<float> values = from.read_f32(name);
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    pad(data);
  }
  std::string out = "GGUF" + raw(uint32_t{3}) + raw(uint64_t{names.size()}) + raw(uint64_t{1}) +
                    text("general.architecture") + raw(uint32_t{8}) + text("t5encoder") + infos;
  pad(out);
  return out + data;
}

}  // namespace vkflux::test
