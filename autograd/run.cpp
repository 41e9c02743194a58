#include "autograd/run.h"

#include <fmt/format.h>

#include <algorithm>

#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint64_t kGroupRow = 32768;  // the same constant as in shaders/common/index.glsl

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
  if (device.rehearsing()) {
    return device.stream().rehearse(kernel.shader, device.kernels().interface(kernel.shader, kernel.variant),
                                    {ranges.data(), bindings.size()});
  }
  device.stream().dispatch(
      device.kernels().get(kernel.shader, kernel.variant, kernel.spec, kernel.subgroup_size),
      {ranges.data(), bindings.size()}, args, groups, cost);
}

Tensor saturation_place(Device& device) {
  return Tensor::over(device, device.saturated().place(), {1}, DType::i32);
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

}  // namespace vkflux
