// How ops launch kernels: bindings are tensors, arguments are the structs of shaders/*.args.h.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "autograd/args.h"
#include "autograd/tensor.h"

namespace vkflux {

/// A kernel to run: spec::Copy{.LOCAL = 256, .RANK = 2, .MODE = 1} names the shader copy.comp and all its
/// specialisation constants.
struct KernelId {
  template <class Spec>
  requires std::is_same_v<decltype(Spec::kShader), const char* const> KernelId(
      const Spec& constants, const char* its_variant = "f32", uint32_t subgroup = 0)
      : shader(Spec::kShader), variant(its_variant), subgroup_size(subgroup) {
    if constexpr (!std::is_empty_v<Spec>)
      spec = SpecValues(std::bit_cast<std::array<uint32_t, sizeof(Spec) / 4>>(constants));
  }

  const char* shader;
  const char* variant;
  SpecValues spec;
  uint32_t subgroup_size;  // that the kernel needs, every subgroup full; 0: any
};

/// A tensor of the caller's for the length of a call: lists of tensors copy them.
class TensorRef {
 public:
  TensorRef(const Tensor& tensor) : tensor_(&tensor) {}
  const Tensor* operator->() const { return tensor_; }

 private:
  const Tensor* tensor_;
};

void run_bytes(Device& device, const KernelId& kernel, std::span<const TensorRef> bindings,
               std::span<const std::byte> args, Groups groups, Cost cost);

/// Every tensor must be is_bindable() (contiguous and aligned: op::contiguous makes it so), or a strided view
/// whose first element is aligned, with its strides in args.
template <class Args>
void run(Device& device, const KernelId& kernel, std::initializer_list<TensorRef> bindings, const Args& args,
         Groups groups, Cost cost) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= 128 && sizeof(Args) % 4 == 0);
  run_bytes(device, kernel, {bindings.begin(), bindings.size()}, std::as_bytes(std::span(&args, 1)), groups,
            cost);
}

constexpr uint64_t ceil_div(uint64_t a, uint64_t b) {
  return (a + b - 1) / b;
}
inline uint32_t u32(int64_t x) {
  return static_cast<uint32_t>(x);
}

/// Where one call of a kernel that rounds to f16 counts what Device::saturated() tells of, i32 [1].
Tensor saturation_place(Device& device);

/// n workgroups in one dimension, folded into x and y; group_1d() of shaders/common/index.glsl is the inverse
/// (a kernel must check its index against the count: the last row may be partly empty).
Groups groups_1d(uint64_t n);

/// Throws invalid_argument "op: what (shapes of the tensors)".
void expect(const char* op, bool ok, std::string_view what, std::initializer_list<const Tensor*> tensors);

/// The structure of kernels to use, by device class; "simd" needs subgroup shuffles and a SIMD-width
/// subgroup. VKFLUX_VARIANT="op:form,op:form" forces one wherever it fits (measurements); see
/// VariantOverride.
bool use_simd(Device& device, const char* op);

/// While alive, `op` runs in `form` on this thread. Error invalid_argument names the ops and forms there are
/// (autograd/variants.cpp).
class VariantOverride {
 public:
  enum class Where {
    always,  // a call that the form can't take is an Error internal
    it_fits  // such calls take another form
  };
  VariantOverride(std::string op, std::string form, Where where = Where::always);
  ~VariantOverride();
  VariantOverride(const VariantOverride&) = delete;
  VariantOverride& operator=(const VariantOverride&) = delete;
};
/// The forced form of an op, or empty.
std::string forced_variant(const char* op);
/// An op that has chosen says so here, which is where an override finds out that it wasn't followed.
void took_variant(const char* op, std::string_view form);
/// Error invalid_argument when VKFLUX_VARIANT names no op or form; set but empty counts as unset.
void check_forced_variants();

}  // namespace vkflux
