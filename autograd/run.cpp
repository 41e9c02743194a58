#include "autograd/run.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kGroupRow = 32768;  // the same constant as in shaders/common/index.glsl

std::vector<std::pair<std::string, std::string>>& overrides() {
  thread_local std::vector<std::pair<std::string, std::string>> list = [] {
    std::vector<std::pair<std::string, std::string>> out;
    std::string text = environment("VKFLUX_VARIANT");
    while (!text.empty()) {
      const size_t comma = std::min(text.find(','), text.size()), colon = text.find(':');
      if (colon < comma) out.emplace_back(text.substr(0, colon), text.substr(colon + 1, comma - colon - 1));
      text.erase(0, comma + 1);
    }
    return out;
  }();
  return list;
}

}  // namespace

void run_bytes(Device& device, const KernelId& kernel, std::span<const TensorRef> bindings,
               std::span<const std::byte> args, Groups groups, Cost cost) {
  if (groups.x == 0 || groups.y == 0 || groups.z == 0) return;
  constexpr size_t kMax = 16;
  if (bindings.size() > kMax)
    throw Error(ErrorCode::internal, fmt::format("{}: over {} bindings", kernel.shader, kMax));
  std::array<Binding, kMax> ranges;
  const uint64_t alignment = device.caps().buffer_alignment;
  for (size_t i = 0; i < bindings.size(); ++i) {
    ranges[i] = bindings[i]->binding();
    if (ranges[i].offset % alignment != 0) {
      throw Error(ErrorCode::internal,
                  fmt::format("{}: a binding starts at byte {}, the device needs multiples of {}",
                              kernel.shader, ranges[i].offset, alignment));
    }
  }
  device.stream().dispatch(
      device.kernels().get(kernel.shader, kernel.variant, kernel.spec, kernel.subgroup_size),
      {ranges.data(), bindings.size()}, args, groups, cost);
}

Groups groups_1d(uint64_t n) {
  return {static_cast<uint32_t>(std::min(n, kGroupRow)), static_cast<uint32_t>(ceil_div(n, kGroupRow)), 1};
}

void expect(const char* op, bool ok, std::string_view what, std::initializer_list<const Tensor*> tensors) {
  if (ok) return;
  std::string shapes;
  for (const Tensor* t : tensors) {
    shapes += fmt::format("{}{} {}", shapes.empty() ? "" : ", ", t->defined() ? name(t->dtype()) : "none",
                          t->defined() ? t->shape().str() : "");
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("{}: {} (given {})", op, what, shapes));
}

VariantOverride::VariantOverride(std::string op, std::string variant) {
  overrides().emplace_back(std::move(op), std::move(variant));
}
VariantOverride::~VariantOverride() {
  overrides().pop_back();
}

std::string forced_variant(const char* op) {
  const auto& list = overrides();
  if (list.empty()) return {};
  const auto it = std::find_if(list.rbegin(), list.rend(),
                               [&](const auto& o) { return o.first == op || o.first == "*"; });
  return it == list.rend() ? std::string() : it->second;
}

bool use_simd(Device& device, const char* op) {
  const std::string forced = forced_variant(op);
  if (!forced.empty()) return forced == "simd" && device.caps().simd();
  return device.device_class() == DeviceClass::cpu && device.caps().simd();
}

}  // namespace vkflux
