#include "tests/harness/gguf_writer.h"

#include <set>

namespace vkflux::test {
namespace {

constexpr size_t kAlignment = 32;

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
    infos += gguf_text(rename(name)) + gguf_raw(static_cast<uint32_t>(info.shape.size()));
    for (auto d = info.shape.rbegin(); d != info.shape.rend(); ++d)
      infos += gguf_raw(static_cast<uint64_t>(*d));
    infos += gguf_raw(uint32_t{0}) + gguf_raw(uint64_t{data.size()});
    const std::vector<float> values = from.read_f32(name);
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    pad(data);
  }
  std::string out = "GGUF" + gguf_raw(uint32_t{3}) + gguf_raw(uint64_t{names.size()}) +
                    gguf_raw(uint64_t{1}) + gguf_text("general.architecture") + gguf_raw(uint32_t{8}) +
                    gguf_text("t5encoder") + infos;
  pad(out);
  return out + data;
}

}  // namespace vkflux::test
